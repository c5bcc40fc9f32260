"""Linear-DPO (arXiv 2605.21123): the sigmoid's slope made linear, and taken as a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class LinearDPO(Objective):
    """``r (L_w - L_l)``, ``r = clip(1/2 - 2/5 u)`` without gradient.

    With ``u = beta / 2 * lambda(t) * margin``; the reference enters by the weight r alone. DPO has
    ``beta / 2 * lambda(t) * sigmoid(-u)`` for it: here beta is no factor of the gradient, so that
    learning rates are other ones, and ``lambda(t)`` scales beta within r and weighs nothing.

    The paper clips r to [eta, 1], the code (``WhynotChen0105/Linear-DPO``) to [eta, 1 - eta]. Code:
    beta 100 and eta 1e-3 for Stable Diffusion 1.5, 500 and 0 for SDXL, learning rates 5e-6 and 1e-5
    that are not scaled; paper: beta 250 is the best of those tried. Both may let the reference
    follow every step (``reference: ema``, decay 0.95 to 0.995).
    """

    name: ClassVar[str] = "linear-dpo"
    public_code: ClassVar[str] = "r up to 1 - eta, in the paper up to 1; paper: beta 250"
    beta: float = Field(100.0, gt=0)
    eta: float = Field(1e-3, ge=0, lt=0.5)
    highest: Literal["1 - eta", "1"] = "1 - eta"
    """What r is clipped to above."""

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, of either sign."""
        most = 1.0 if self.highest == "1" else 1 - self.eta
        weight = (0.5 - 0.4 * batch.logit(self.beta).detach()).clamp(self.eta, most)
        return weight * (batch.winner.error - batch.loser.error)
