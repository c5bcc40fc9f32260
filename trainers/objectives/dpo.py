"""Diffusion-DPO (Wallace et al. 2024, arXiv 2311.12908), also with labels that may be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from trainers.objectives.base import Batch, Objective
from trainers.registry import OFF

if TYPE_CHECKING:
    from torch import Tensor


class DPO(Objective):
    """``l(u)``; with ``label_smoothing: e``, ``(1 - e) l(u) + e l(-u)``.

    With ``l(u) = -log sigmoid(u)`` and ``u = beta / 2 * lambda(t) * margin``, in the convention of
    the authors' code: errors are means over C, H, W, a factor one half, and the number of timesteps
    absorbed in ``beta``. Their launchers have beta 5000, the paper 2000 to 5000. ``lambda(t)``
    stands inside the sigmoid, where it scales ``beta``; it is no loss weight (Kang et al. 2025,
    arXiv 2505.18736, Eq. 5-6).

    Where the winner is preferred with probability ``p`` only, the loss is the expectation over
    labels, ``p l(u) + (1 - p) l(-u)``. Where a label is wrong with probability ``e``
    (``label_smoothing``), that is ``(1 - e) l(u) + e l(-u)`` (cDPO, Mitchell 2023); with ``robust``
    it is rDPO's estimate without bias, ``((1 - e) l(u) - e l(-u)) / (1 - 2 e)`` (Chowdhury et al.
    2024, arXiv 2403.00409).
    """

    name: ClassVar[str] = "dpo"
    soft_labels: ClassVar[bool] = True
    public_code: ClassVar[str] = (
        "its logit is what counts: three statements of the paper differ from it by factors"
    )
    beta: float = Field(5000.0, gt=0)
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5), OFF] = 0.0
    """Share of labels that are taken to be wrong."""
    robust: Annotated[bool, OFF] = False
    """Correct the loss for wrong labels, rather than expect them."""

    @model_validator(mode="after")
    def _robust_to_something(self) -> DPO:
        if self.robust and self.label_smoothing == 0:
            raise ValueError("robust needs a label_smoothing above 0: the share of wrong labels")
        return self

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0 unless ``robust``."""
        from torch.nn.functional import logsigmoid

        u, e = batch.logit(self.beta), self.label_smoothing
        p = batch.preference
        if self.robust:  # The label that inverts the noise: of p, less than 0 or more than 1.
            p = (p - e) / (1 - 2 * e)
        elif e:
            p = p * (1 - e) + (1 - p) * e
        return -p * logsigmoid(u) - (1 - p) * logsigmoid(-u)
