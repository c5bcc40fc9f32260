"""Adafactor, as Diffusion-DPO trains SDXL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trainers.optimizers.base import Optimizer

if TYPE_CHECKING:
    from torch import nn, optim


class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern 2018, arXiv 1804.04235) at a given learning rate.

    By transformers, with ``scale_parameter`` and ``relative_step`` off and no first moment, which
    is how Diffusion-DPO's code sets it for SDXL (Wallace et al. 2023, arXiv 2311.12908). torch's
    own always multiplies the rate by the size of each parameter, which cannot be turned off.
    """

    name: ClassVar[str] = "adafactor"
    clip_threshold: float = Field(1.0, gt=0)
    """Bound on the root mean square of each tensor's update, before the learning rate."""
    decay_rate: float = Field(-0.8, le=0)
    """``beta_2`` of step t is ``1 - t ** decay_rate``."""
    eps: float = Field(1e-30, gt=0)
    """Added to the squared gradient."""

    def start(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """See the base class."""
        from transformers.optimization import Adafactor as TransformersAdafactor

        kind: Any = TransformersAdafactor
        made: optim.Optimizer = kind(
            parameters,
            lr=self.lr,
            eps=(self.eps, 1e-3),  # The second belongs to scale_parameter.
            clip_threshold=self.clip_threshold,
            decay_rate=self.decay_rate,
            weight_decay=self.weight_decay,
            scale_parameter=False,
            relative_step=False,
        )
        return made

    def state_bytes(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Means of the rows and of the columns of a matrix, in float32; all of a vector."""
        return 4 * sum(
            prod(s[:-1]) + prod((*s[:-2], s[-1])) if len(s) > 1 else prod(s) for s in shapes
        )
