"""THERMoDPO, weighted by the noise level (Kling team, 2026)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class ThermoDPO(Objective):
    """``tau log(1 + exp(-margin / tau) + exp((1 - t)^2 L_w / tau))``, ``tau = t / (beta lambda)``.

    A soft maximum of nothing, what the pair is ranked wrongly by, and the winner's error: the one
    that is largest is lowered. ``t`` in (0, 1] is the share of noise, of a flow model its sigma
    (``batch.sigma``); a temperature ``tau`` falls with it. ``lambda(t)`` scales beta, and by it tau
    in all places.

    Source: the weighted form of the paper (its Eq. 11), with beta 100 for Stable Diffusion 3.5,
    batches of 128 and 1200 steps. No public code was found. Its beta has no half before the margin.
    """

    name: ClassVar[str] = "thermo-dpo"
    public_code: ClassVar[str] = "none was found"
    beta: float = Field(100.0, gt=0)

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, above 0."""
        import torch

        t = batch.sigma
        tau = t / (self.beta * batch.scale)
        wrong, far = -batch.margin / tau, (1 - t).square() * batch.winner.error / tau
        return tau * torch.stack([torch.zeros_like(wrong), wrong, far]).logsumexp(0)
