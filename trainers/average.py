"""Moving averages of networks."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from trainers.input.checked import Checked

if TYPE_CHECKING:
    from torch import nn


def mix_in(average: nn.Module, network: nn.Module, share: float) -> None:
    """``average <- share * network + (1 - share) * average``, in place, without gradient."""
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.detach().lerp_(new.detach(), share)


class Average(Checked):
    """``average <- decay * average + (1 - decay) * policy``, kept beside the policy.

    It changes nothing in training. Being a mean of weights, that of two low-rank adapters is the
    mean of each factor.
    """

    decay: float = Field(0.9999, ge=0, lt=1)
    every: int = Field(1, ge=1)
    """Optimiser steps between two updates."""
    warmup: bool = True
    """Update n, from 1, decays by at most ``(1 + n) / (10 + n)``, so that the first steps do not
    weigh on the average for long (as in TensorFlow's ``ExponentialMovingAverage``)."""
    result: Literal["average", "policy"] = "average"
    """Which of the two the run saves, and images are made from."""

    def start(self, policy: nn.Module) -> nn.Module:
        """The average before the first step: a copy of the policy."""
        return copy.deepcopy(policy).eval().requires_grad_(False)

    def decay_at(self, update: int) -> float:
        """Decay of the 1-based ``update``."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    def after_step(self, step: int, average: nn.Module, policy: nn.Module) -> None:
        """Update ``average`` in place after optimiser step ``step``, counted from 1."""
        update, rest = divmod(step, self.every)
        if not rest:
            mix_in(average, policy, 1 - self.decay_at(update))
