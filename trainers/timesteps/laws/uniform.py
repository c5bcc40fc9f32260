"""Every timestep equally often."""

from typing import ClassVar

from torch import Tensor

from trainers.timesteps.base import TimestepLaw


class Uniform(TimestepLaw):
    """``t`` uniform on ``0 .. T - 1``."""

    name: ClassVar[str] = "uniform"

    def timesteps(self, uniform: Tensor, count: int) -> Tensor:
        """See the base class."""
        return (uniform * count).long().clamp_(max=count - 1)
