"""IPO (Azar et al. 2023, arXiv 2310.12036) on the implicit reward of diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class IPO(Objective):
    """``(u - 1 / (2 tau))^2``.

    With ``u = beta / 2 * lambda(t) * margin``: a margin to be met. No paper has it for diffusion,
    and the one public form (``--loss_type ipo`` of the DPO script of diffusers) stops with an
    error; mended as it stands, it compares a margin of about 1e-3 without any scale to ``1 / (2 *
    2500)``, which is beta 2 and tau 2500 here. Our defaults: DPO's beta, and a tau that asks for
    ``u = 1``. Where the winner is preferred with probability ``p`` only, the loss is the
    expectation over labels.
    """

    name: ClassVar[str] = "ipo"
    soft_labels: ClassVar[bool] = True
    public_code: ClassVar[str] = "no paper for diffusion; the one script stops with an error"
    beta: float = Field(5000.0, gt=0)
    tau: float = Field(0.5, gt=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        u, p, wanted = batch.logit(self.beta), batch.preference, 1 / (2 * self.tau)
        return p * (u - wanted).square() + (1 - p) * (u + wanted).square()
