"""A larger reward scale where the signal is weak."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.errors import UserError
from trainers.timesteps.base import RewardScale

if TYPE_CHECKING:
    from torch import Tensor


class InverseSqrtSNR(RewardScale):
    """``lambda(t) = 1 + norm(1 / sqrt(SNR(t)))`` (Kang et al. 2025, arXiv 2505.18736).

    ``norm`` is min-max over all timesteps, so ``lambda`` runs from 1 to 2. That reading of "norm"
    is inferred: it fits the paper's Figure 2(d).

    The paper's schedules end with a little signal, SNR 0.0047. Others go on to none, where
    ``1 / sqrt(SNR)`` is infinite and min-max leaves 1 everywhere else: flow models, and schedules
    rescaled to a zero terminal SNR. So that ``lambda`` is nearly the same function of the noise
    level for all of them, an SNR below ``floor`` counts as ``floor``; the default is where Stable
    Diffusion's schedule ends, rounded down, and changes nothing there. For a flow model it is the
    noise share ``sigma = 1 / (1 + sqrt(floor)) = 0.936``, from which on ``lambda`` is 2.
    """

    name: ClassVar[str] = "inverse-sqrt-snr"
    floor: float | None = Field(0.00468, gt=0)
    """Least SNR that counts, ``a^2 / b^2`` of ``a x_0 + b eps``; None for no such bound."""

    def factors(self, snr: Tensor) -> Tensor:
        """See the base class.

        Raises:
            UserError: If a timestep has no signal at all and there is no floor, which leaves
                ``norm`` without a maximum.
        """
        snr = snr.double()
        if self.floor is not None:
            snr = snr.clamp(min=self.floor)
        if not (snr > 0).all():
            raise UserError(
                f"reward scale {self.name!r} needs signal at every timestep, but this model's "
                "schedule ends at a signal-to-noise ratio of 0: set a floor, or use the scale "
                "'constant'"
            )
        inverse = snr.rsqrt()
        low, high = inverse.min(), inverse.max()
        return (1 + (inverse - low) / (high - low)).float()
