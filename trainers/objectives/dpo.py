"""Diffusion-DPO (Wallace et al. 2024, arXiv 2311.12908)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Objective, PairErrors

if TYPE_CHECKING:
    from torch import Tensor


class DPO(Objective):
    """``-log sigmoid(beta / 2 * lambda(t) * ((R_w - L_w) - (R_l - L_l)))``.

    The convention of the authors' code: errors are means over C, H, W, a factor one half, and the
    number of timesteps absorbed in ``beta``. ``lambda(t)`` stands inside the sigmoid, where it
    scales ``beta``; it is no loss weight (Kang et al. 2025, arXiv 2505.18736, Eq. 5-6).

    Where the winner is preferred with probability ``p`` only, the loss is the expectation over
    labels, ``p * -log sigmoid(u) + (1 - p) * -log sigmoid(-u)``.
    """

    name: ClassVar[str] = "dpo"
    soft_labels: ClassVar[bool] = True
    beta: float = Field(5000.0, gt=0)

    @property
    def strength(self) -> float:
        """``beta``."""
        return self.beta

    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        from torch.nn.functional import logsigmoid

        u = 0.5 * self.beta * scale * errors.margin
        p = errors.preference
        return -p * logsigmoid(u) - (1 - p) * logsigmoid(-u)
