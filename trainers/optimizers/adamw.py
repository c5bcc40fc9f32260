"""AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.optimizers.base import Optimizer

if TYPE_CHECKING:
    from torch import nn, optim


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101), by torch.

    On a GPU its fused kernel: torch's default there works on all weights at a time, for which it
    holds as much memory again as the weights take.
    """

    name: ClassVar[str] = "adamw"
    shardable: ClassVar[bool] = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)

    def start(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """See the base class."""
        from torch.optim import AdamW as TorchAdamW

        weights = list(parameters)
        return TorchAdamW(
            weights,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=all(weight.is_cuda for weight in weights) or None,
        )

    def state_bytes(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Two float32 moments a weight."""
        return 8 * sum(map(prod, shapes))
