"""How a step draws its timesteps, and how the implicit reward is scaled along them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import Tensor


class TimestepLaw(Settings, ABC):
    """A law of timesteps, as the map from a uniform draw to a timestep.

    Going through one shared uniform draw couples the laws: two arms with different laws see the
    same underlying randomness, and two arms with the same law see the same timesteps.
    """

    @abstractmethod
    def timesteps(self, uniform: Tensor, count: int) -> Tensor:
        """Map draws in [0, 1), ``float64[n]``, to timesteps in [0, ``count``), ``int64[n]``."""


class RewardScale(Settings, ABC):
    """``lambda(t)``, the factor on beta."""

    @abstractmethod
    def factors(self, snr: Tensor) -> Tensor:
        """``lambda`` at every timestep, ``float32[T]``, from the signal-to-noise ratio ``[T]``."""
