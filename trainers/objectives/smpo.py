"""SmPO: smoothed preference optimisation (Lu et al., ICML 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class SmPO(Objective):
    """``l(gamma (2 p - 1) u)``.

    With ``l(u) = -log sigmoid(u)`` and ``u = beta / 2 * lambda(t) * margin``: a pair that is
    hardly decided has a weak beta. ``p`` is the probability that the winner is preferred; the
    authors take it from PickScore, ours is ``data.labels: probability`` from the scores that
    ``bench data label`` writes (``data.temperature`` 0.1666 on its cosines). With labels that
    are certain it is ``dpo`` with ``gamma`` times the beta.

    Defaults of the code (``JaydenLyh/SmPO``): gamma 10, and beta 2000 for Stable Diffusion 1.5,
    5000 for SDXL, with ``noising: renoise``, from a model that was fine-tuned on winners. It takes
    the p of the first pair for all of a batch, and so is right for batches of one pair alone.
    """

    name: ClassVar[str] = "smpo"
    soft_labels: ClassVar[bool] = True
    public_code: ClassVar[str] = "one p for a device's batch: right for batches of one pair"
    beta: float = Field(2000.0, gt=0)
    gamma: float = Field(10.0, gt=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, above 0."""
        from torch.nn.functional import logsigmoid

        sureness = self.gamma * (2 * batch.preference - 1)
        return -logsigmoid(sureness * batch.logit(self.beta))
