"""DSPO: direct score preference optimisation (Zhu et al., ICLR 2025), as its code has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainers.objectives.base import Batch, Objective, Values

if TYPE_CHECKING:
    from torch import Tensor

BETAS = {"sd15": 0.001, "sdxl": 5000.0}


class DSPO(Objective):
    """``|(e_w - target) - beta lambda sigmoid(-u) (e_w - e_ref_w)|^2``, or ``form: sdxl``.

    With ``u = beta / 2 * lambda(t) * margin``, and e what is predicted of the winner:

        sd15   mean over C, H, W of ((e - target) - beta lambda (1 - sigmoid(u)) (e - e_ref))^2
        sdxl   (1 - sigmoid(u))^2 while the mean of (e - e_ref)^2 is below ``near``, and
               mean over C, H, W of ((1 - sigmoid(u)) (e - e_ref))^2 from there on

    Gradients flow through ``sigmoid(u)``, too. The first form is the paper's, and ``lambda`` scales
    beta at both places; the second is that of the public code for SDXL (``huaishengzhu/DSPO``),
    which its paper does not have: no term of it fits the data. Defaults of the code: beta 0.001, at
    which ``sigmoid(u)`` is nearly one half and the form is nearly SFT, and 5000.

    The code chooses the branch of ``sdxl`` by the mean over a device's batch; here that is the
    batch of the optimiser step, or ``neighbours`` rows of it.
    """

    name: ClassVar[str] = "dspo"
    public_code: ClassVar[str] = (
        "its beta makes it nearly sft; the form for SDXL is not the paper's"
    )
    form: Literal["sd15", "sdxl"] = "sd15"
    beta: float = Field(BETAS["sd15"], gt=0)
    """By default 0.001 for ``sd15`` and 5000 for ``sdxl``."""
    near: float = Field(0.1, ge=0)
    neighbours: int | None = Field(None, ge=1)
    """Rows of the stream that share a branch; None for the whole batch."""

    @model_validator(mode="before")
    @classmethod
    def _beta_of_the_form(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        form = values.get("form", "sd15")
        return {"beta": BETAS[form], **values} if form in BETAS else dict(values)

    @property
    def predictions(self) -> bool:
        """Always."""
        return True

    @property
    def group(self) -> int | None:
        """``neighbours``, where there is a branch to be chosen."""
        return self.neighbours if self.form == "sdxl" else 1

    def statistics(self, batch: Batch) -> Values:
        """How far the policy's predictions are from the reference's."""
        return {"distance": batch.winner.shift.square().flatten(1).mean(1)}

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        winner, doubt = batch.winner, (-batch.logit(self.beta)).sigmoid()
        if self.form == "sdxl":
            distance = winner.shift.square().flatten(1).mean(1)
            near = batch.means["distance"] < self.near
            return doubt.square() * distance.where(~near, 1)
        pull = (self.beta * batch.scale * doubt).view(-1, 1, 1, 1)
        return (winner.residual - pull * winner.shift).square().flatten(1).mean(1)
