"""What every optimiser has: a learning rate along the run, and a bound on the gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import nn, optim


class Optimizer(Settings, ABC):
    """A linear warm-up from 0, as ``constant_with_warmup`` of transformers, then the schedule."""

    version: ClassVar[int] = 2  # 1 began at lr / warmup_steps.

    shardable: ClassVar[bool] = False
    """Whether it treats each weight by itself, so that FSDP may spread a tensor over processes."""
    lr: float = Field(gt=0)
    """The rate that is applied: no hidden factor of batch size or processes."""
    warmup_steps: int = Field(0, ge=0)
    """Step ``s``, from 0, has the rate ``lr * s / warmup_steps`` while that is below ``lr``."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: as it is, or down towards 0 at the end of the run."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Joint norm that gradients are clipped to."""
    weight_decay: float = Field(1e-2, ge=0)

    @abstractmethod
    def start(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """The optimiser at step 0; all its state is in its ``state_dict``.

        Raises:
            UserError: If a package that it needs is not installed.
        """

    def state_bytes(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Bytes of state for weights of some shapes; AdamW's, where an optimiser says nothing."""
        return 8 * sum(map(math.prod, shapes))

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of 0-based ``step`` of a run of ``steps``."""
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        done = (step - self.warmup_steps) / (steps - self.warmup_steps)
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.lr * left
