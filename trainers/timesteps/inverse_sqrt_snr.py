"""A larger reward scale where the signal is weak."""

from typing import ClassVar

from torch import Tensor

from trainers.errors import UserError
from trainers.timesteps.base import RewardScale


class InverseSqrtSNR(RewardScale):
    """``lambda(t) = 1 + norm(1 / sqrt(SNR(t)))`` (Kang et al. 2025, arXiv 2505.18736).

    ``norm`` is min-max over all timesteps, so ``lambda`` runs from 1 to 2. That reading of "norm"
    is inferred: it fits the paper's Figure 2(d).
    """

    name: ClassVar[str] = "inverse-sqrt-snr"

    def factors(self, snr: Tensor) -> Tensor:
        """See the base class.

        Raises:
            UserError: If a timestep has no signal at all, which leaves ``norm`` without a maximum.
        """
        if not (snr > 0).all():
            raise UserError(
                f"reward scale {self.name!r} needs signal at every timestep, but this model's "
                "schedule ends at a signal-to-noise ratio of 0: use the scale 'constant'"
            )
        inverse = snr.double().rsqrt()
        low, high = inverse.min(), inverse.max()
        return (1 + (inverse - low) / (high - low)).float()
