"""The hinge loss on the implicit reward, as public code has it for diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class Hinge(Objective):
    """``max(0, gap - u)``.

    With ``u = beta / 2 * lambda(t) * margin``: a pair that is ranked correctly by ``gap`` teaches
    no more. ``--loss_type hinge`` of the DPO script of diffusers has gap 1 and no half before its
    beta 2500, which is 5000 here. Diffusion-DRO (NeurIPS 2025, ``basiclab/DiffusionDRO``) has
    ``0.001 - margin``, which is beta 2 and gap 0.001 here; its losers are drawn by the policy as it
    trains, and ours are those of the data. Where the winner is preferred with probability ``p``
    only, the loss is the expectation over labels.
    """

    name: ClassVar[str] = "hinge"
    soft_labels: ClassVar[bool] = True
    public_code: ClassVar[str] = "no paper has the form of diffusers; its beta is half of ours"
    beta: float = Field(5000.0, gt=0)
    gap: float = Field(1.0, gt=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        u, p = batch.logit(self.beta), batch.preference
        return p * (self.gap - u).relu() + (1 - p) * (self.gap + u).relu()
