"""DPO with the winner's error beside it (SUDO, arXiv 2504.14534, and its kin)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch
from trainers.objectives.dpo import DPO

if TYPE_CHECKING:
    from torch import Tensor


class AnchoredDPO(DPO):
    """``weight l(u) + sft L_w``.

    With the ``l(u)`` of ``dpo``, its settings included: fine-tuning on the winner holds the policy
    where DPO alone would let both errors grow. ``lambda(t)`` scales the beta of ``u``, and weighs
    ``L_w`` not at all.

    SUDO (``SPengLiang/SUDO``) has one half for both weights, our default, beta 5000 and a learning
    rate of 1e-6 that is not scaled; its loser is a degraded copy of the winner, and ours is that of
    the data. Others weigh DPO by 1 and ``L_w`` by a small weight.
    """

    name: ClassVar[str] = "anchored-dpo"
    soft_labels: ClassVar[bool] = False
    public_code: ClassVar[str] = "SUDO's loser is a degraded copy of the winner"
    weight: float = Field(0.5, gt=0)
    sft: float = Field(0.5, ge=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0 unless ``robust``."""
        return self.weight * super().loss(batch) + self.sft * batch.winner.error
