"""Middle timesteps more often, as flow models are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.timesteps.base import TimestepLaw

if TYPE_CHECKING:
    from torch import Tensor


class LogitNormal(TimestepLaw):
    """``t = T / (1 + exp(-(location + scale z)))`` with ``z`` standard normal.

    The law of Stable Diffusion 3's training (Esser et al. 2024, arXiv 2403.03206, section 3.1), on
    the timesteps before the shift, by location 0 and scale 1. A larger location is noisier, as in
    the paper; code that counts indices from the noisiest has the other sign.
    """

    name: ClassVar[str] = "logit-normal"
    location: float = 0.0
    scale: float = Field(1.0, gt=0)

    def timesteps(self, uniform: Tensor, count: int) -> Tensor:
        """Invert the distribution function; see the base class."""
        import torch

        position = torch.sigmoid(self.location + self.scale * torch.special.ndtri(uniform))
        return (position * count).long().clamp_(max=count - 1)
