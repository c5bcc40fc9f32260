"""Diffusion-SDPO (arXiv 2511.03317): what the loser teaches may not undo what the winner does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Values
from trainers.safeguards.base import Safeguard

if TYPE_CHECKING:
    from torch import Tensor


class SDPO(Safeguard):
    """Multiplies the gradients that go through the loser by a factor in [0, 1].

        min(1, (1 - mu) <|g_w|^2> / (<g_w . g_l> + epsilon)) where <g_w . g_l> > 0, else 1

    ``g`` is the gradient of an image's error by its prediction, ``2 (prediction - target) / N`` of
    N elements, and <> a mean over ``neighbours`` rows. No gradient flows through the factor. An
    objective that reaches the loser only through a logit, as DSPO, is slowed there.

    Public code (``AIDC-AI/Diffusion-SDPO``): mu 0.9 for Stable Diffusion 1.5 (0.2 with DSPO), 0.6
    for SDXL; one factor for a device's batch of 8, which is ``neighbours: 8``; and 1e-9 added to
    the product of the gradients of that batch's mean error, which is ``neighbours`` times smaller
    than ours: an ``epsilon`` of 8e-9 here. By default one factor stands for the whole optimiser
    batch.
    """

    name: ClassVar[str] = "sdpo"
    mu: float = Field(0.9, ge=0, le=1)
    neighbours: int | None = Field(None, ge=1)
    """Rows of the stream that share a factor; None for the whole batch."""
    epsilon: float = Field(1e-9, ge=0)

    @property
    def group(self) -> int | None:
        """``neighbours``."""
        return self.neighbours

    def statistics(self, batch: Batch) -> Values:
        """``|g_w|^2`` and ``g_w . g_l``."""
        winner, loser = (side.residual.flatten(1) for side in batch.sides)
        unit = 4 / winner.shape[1] ** 2
        return {
            "own": unit * winner.square().sum(1),
            "shared": unit * (winner * loser).sum(1),
        }

    def _factor(self, batch: Batch) -> Tensor:
        own, shared = batch.means["own"], batch.means["shared"]
        bound = (1 - self.mu) * own / (shared + self.epsilon)
        return bound.clamp(0, 1).where(shared > 0, 1)

    def figures(self, batch: Batch) -> Values:
        """The factor."""
        return {"factor": self._factor(batch)}

    def guard(self, batch: Batch) -> Batch:
        """See the class."""
        slowed = batch.loser.slowed(self._factor(batch))
        return replace(batch, sides=(batch.winner, slowed))
