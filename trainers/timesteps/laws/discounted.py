"""Noisy timesteps more often, by a discount per interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.timesteps.base import TimestepLaw
from trainers.timesteps.laws.uniform import Uniform

if TYPE_CHECKING:
    from torch import Tensor


class Discounted(TimestepLaw):
    """An interval from ``Cat(p_k ~ gamma^k)``, then ``t`` uniform inside it.

    ``k`` counts ``intervals`` equal intervals from the noisiest (Kang et al. 2025, arXiv
    2505.18736). The paper gives gamma = 0.9 but not the number of intervals; 10 are those of its
    analysis, and 50 follows Yang, Chen & Zhou 2024.
    """

    name: ClassVar[str] = "discounted"
    gamma: float = Field(0.9, gt=0, le=1)
    intervals: int = Field(10, ge=1, le=1000)

    def timesteps(self, uniform: Tensor, count: int) -> Tensor:
        """Invert the piecewise linear distribution function; see the base class."""
        import torch

        if self.gamma == 1:  # The uniform law to the bit, which the sums below would miss.
            return Uniform().timesteps(uniform, count)
        noisiest_first = self.gamma ** torch.arange(self.intervals, dtype=torch.float64)
        share = noisiest_first.flip(0) / noisiest_first.sum()
        upper = share.cumsum(0)
        interval = torch.searchsorted(upper, uniform, right=True).clamp_(max=self.intervals - 1)
        inside = 1 - (upper[interval] - uniform) / share[interval]
        position = (interval + inside.clamp(0, 1)) / self.intervals
        return (position * count).long().clamp_(max=count - 1)
