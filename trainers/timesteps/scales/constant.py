"""No scaling along the timesteps."""

from typing import ClassVar

import torch
from torch import Tensor

from trainers.timesteps.base import RewardScale


class Constant(RewardScale):
    """``lambda(t) = 1``."""

    name: ClassVar[str] = "constant"

    def factors(self, snr: Tensor) -> Tensor:
        """See the base class."""
        return torch.ones(len(snr))
