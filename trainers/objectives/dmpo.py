"""DMPO: divergence minimisation preference optimisation (arXiv 2507.07510)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class DMPO(Objective):
    """``p log(p / (1 - alpha)) + (1 - p) log((1 - p) / alpha)``, ``p = sigmoid(u)``.

    With ``u = beta / 2 * lambda(t) * margin``: the reverse divergence of the policy's preference
    from one that is right with probability ``1 - alpha``. It is 0 where both agree; surer pairs are
    pushed back, and pairs that are ranked hopelessly wrong are let go, since the gradient has a
    factor ``p (1 - p)``.

    Defaults of the one public code that has it (``AIDC-AI/Diffusion-SDPO``): alpha 0.01, and beta
    2000 for Stable Diffusion 1.5, 6000 for SDXL. The authors' own was not found.
    """

    name: ClassVar[str] = "dmpo"
    public_code: ClassVar[str] = "none of its authors; beta 6000 for SDXL in Diffusion-SDPO's"
    beta: float = Field(2000.0, gt=0)
    alpha: float = Field(0.01, gt=0, lt=1)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        from torch.nn.functional import logsigmoid

        u = batch.logit(self.beta)
        right, wrong = logsigmoid(u), logsigmoid(-u)
        return right.exp() * (right - math.log1p(-self.alpha)) + wrong.exp() * (
            wrong - math.log(self.alpha)
        )
