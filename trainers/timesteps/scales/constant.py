"""No scaling along the timesteps."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainers.timesteps.base import RewardScale

if TYPE_CHECKING:
    from torch import Tensor


class Constant(RewardScale):
    """``lambda(t) = 1``."""

    name: ClassVar[str] = "constant"

    def factors(self, snr: Tensor) -> Tensor:
        """See the base class."""
        import torch

        return torch.ones(len(snr))
