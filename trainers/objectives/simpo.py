"""SimPO's loss on the errors of diffusion models: no reference, and a margin to be met."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class SimPO(Objective):
    """``l(beta / 2 * lambda(t) * (L_l - L_w) - gamma)``.

    With ``l(u) = -log sigmoid(u)``: SimPO (Meng et al. 2024, arXiv 2405.14734) with minus the error
    as the reward. Its division by the length is there already, since errors are means over C, H, W.
    ``lambda(t)`` scales beta and not ``gamma``.

    It has no paper for diffusion models and no kept public code: the nearest, ``diffusion_orpo`` of
    diffusers, rewarded the winner's error. Our defaults: a slope like that of ``mapo`` where errors
    are small, and a gamma of 1.
    """

    name: ClassVar[str] = "simpo"
    referenced: ClassVar[bool] = False
    public_code: ClassVar[str] = "none; the nearest, diffusers' ORPO, has the wrong sign"
    beta: float = Field(500.0, gt=0)
    gamma: float = Field(1.0, ge=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, above 0."""
        from torch.nn.functional import logsigmoid

        gap = batch.loser.error - batch.winner.error
        return -logsigmoid(0.5 * self.beta * batch.scale * gap - self.gamma)
