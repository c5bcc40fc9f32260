"""Every timestep equally often."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainers.timesteps.base import TimestepLaw

if TYPE_CHECKING:
    from torch import Tensor


class Uniform(TimestepLaw):
    """``t`` uniform on ``0 .. T - 1``."""

    name: ClassVar[str] = "uniform"

    def timesteps(self, uniform: Tensor, count: int) -> Tensor:
        """See the base class."""
        return (uniform * count).long().clamp_(max=count - 1)
