"""Diffusion alpha-DPO (ICLR 2026): an alpha divergence that follows how sure the policy is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective, Values

if TYPE_CHECKING:
    from torch import Tensor


class AlphaDPO(Objective):
    """``(p^a - (1 - a) - a p) / (a (a - 1))``, ``p = sigmoid(u)``, ``a = alpha mean p``.

    With ``u = beta / 2 * lambda(t) * margin``, and the mean over the batch, without gradient;
    where it is not ``adaptive``, ``a = alpha``. As a goes to 1 it is ``p log p - p +
    1``, as it goes to 0 ``-log p + p - 1``, which comes near DPO's: the less sure the policy is,
    the more pairs that it ranks wrongly count. Made for data in which labels are wrong.

    Code (``yangli-lab/Diffusion_alpha-DPO_ICLR2026``): alpha 0.9999 and beta 4000 for SDXL, the
    mean over what all processes run at a time (``neighbours``), and adaptive from the first step
    as its launcher has it. It does not run as it is: the mean asks an undefined name.
    """

    name: ClassVar[str] = "alpha-dpo"
    public_code: ClassVar[str] = "stops at an undefined name; mean over what runs at a time"
    beta: float = Field(4000.0, gt=0)
    alpha: float = Field(0.9999, gt=0, lt=1)
    adaptive: bool = True
    neighbours: int | None = Field(None, ge=1)
    """Rows of the stream that share a mean; None for the whole batch."""

    @property
    def group(self) -> int | None:
        """``neighbours``, where a mean is asked for."""
        return self.neighbours if self.adaptive else 1

    def statistics(self, batch: Batch) -> Values:
        """How sure the policy is of a pair."""
        return {"sureness": batch.logit(self.beta).sigmoid()}

    def _a(self, batch: Batch) -> Tensor:
        return self.alpha * (batch.means["sureness"] if self.adaptive else batch.scale.new_ones(()))

    def figures(self, batch: Batch) -> Values:
        """The a of the step."""
        return {"alpha": self._a(batch).expand_as(batch.scale)}

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        from torch.nn.functional import logsigmoid

        a, u = self._a(batch), batch.logit(self.beta)
        # p^a - p = p^a (1 - p^(1 - a)): as it stands, what is left of it near a = 1 is rounding.
        log_p = logsigmoid(u)
        excess = -(a * log_p).exp() * ((1 - a) * log_p).expm1() / (1 - a)
        return ((-u).sigmoid() - excess) / a
