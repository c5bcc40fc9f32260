"""MaPO: margin-aware preference optimisation without a reference (arXiv 2406.06424)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 1e-4
"""Below it ``y / (e^y - 1)`` is its series: the quotient is 0 / 0 at 0."""


class MaPO(Objective):
    """``L_w + weight l(beta lambda (phi(L_w) - phi(L_l)))``, ``phi(x) = s x / (e^(s x) - 1)``.

    With ``l(u) = -log sigmoid(u)``; ``phi``, s its ``slope``, falls from 1 at no error to 0.

    The public code (``mapo-t2i/mapo``) calls them ``beta_mapo`` 0.1 (our ``weight``), ``snr_value``
    0.5 (our ``slope``) and the number of timesteps, 1000, which stands where beta does in DPO: our
    ``beta``, which ``lambda(t)`` scales. The paper of AAAI-26 has one constant in their place: the
    slope, its inverse the weight, tried from 128 to 1024.
    """

    name: ClassVar[str] = "mapo"
    referenced: ClassVar[bool] = False
    public_code: ClassVar[str] = "three constants, of which the paper has one"
    weight: float = Field(0.1, ge=0)
    slope: float = Field(0.5, gt=0)
    beta: float = Field(1000.0, gt=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        from torch.nn.functional import logsigmoid

        margin = self._link(batch.winner.error) - self._link(batch.loser.error)
        return batch.winner.error - self.weight * logsigmoid(self.beta * batch.scale * margin)

    def _link(self, error: Tensor) -> Tensor:
        y = self.slope * error
        small = y < SMALL
        away = y.where(~small, 1)
        return (1 - y / 2 + y.square() / 12).where(small, away / away.expm1())
