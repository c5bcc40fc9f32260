"""Diffusion-KTO (Li et al. 2024, arXiv 2404.04465): single images, desirable or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainers.objectives.base import Batch, Objective, Values

if TYPE_CHECKING:
    from torch import Tensor

Utility = Literal[
    "kahneman-tversky", "loss-averse", "risk-seeking-1", "risk-seeking-2", "risk-seeking-3"
]


class KTO(Objective):
    """``w (1 - U(s, beta lambda (R - L - z)))``.

    With s = 1 for a desirable image and -1 for others, and ``x = beta lambda(t) (R - L - z)`` the
    utilities U of the public code (``jacklishufan/diffusion-kto``, ``--halo``) are

        kahneman-tversky   sigmoid(s x)                 its default, ``sigmoid``
        loss-averse        log sigmoid(s x)
        risk-seeking-1     -s log sigmoid(-x)
        risk-seeking-2     s exp(x / 100) - 1
        risk-seeking-3     -log sigmoid(-s x)

    and ``z``, without gradient, is by ``offset`` (``--bce_offset``)

        matched            max(0, mean of R - L over the batch)       its default, ``none``
        classes            (mean over desirable + mean over others) / 2, ``sigmoid``; a class that
                           is not in the batch counts as 0
        mismatched         mean of R - L with each image under the caption of the next, ``original``

    Every row of the stream shows one image of its pair with a timestep and a noise of its own: the
    preferred one, which counts as desirable, with probability ``positive_ratio``. The public data
    call an image desirable that was preferred in any of its pairs.

    Code: beta 1000; paper: beta 5000; in both positive_ratio 0.8 and weights 1. The code takes z
    over the devices' current batches; here the batch is that of the optimiser step, or
    ``neighbours`` rows of it.
    """

    name: ClassVar[str] = "kto"
    images: ClassVar[Literal[1, 2]] = 1
    public_code: ClassVar[str] = (
        "beta 1000, paper 5000; z over what runs at a time, not over mismatched captions"
    )
    beta: float = Field(1000.0, gt=0)
    utility: Utility = "kahneman-tversky"
    offset: Literal["matched", "classes", "mismatched"] = "matched"
    neighbours: int | None = Field(None, ge=1)
    """Rows of the stream that share a z; None for the whole batch."""
    positive_ratio: float = Field(0.8, gt=0, le=1)
    desirable_weight: float = Field(1.0, ge=0)
    undesirable_weight: float = Field(1.0, ge=0)

    @property
    def winners(self) -> float:
        """``positive_ratio``."""
        return self.positive_ratio

    @property
    def group(self) -> int | None:
        """``neighbours``."""
        return self.neighbours

    @property
    def mismatched(self) -> bool:
        """Whether captions of other rows are needed."""
        return self.offset == "mismatched"

    def statistics(self, batch: Batch) -> Values:
        """What z is made of."""
        if self.offset == "mismatched":
            assert batch.mismatched is not None
            return {"gain": batch.mismatched}
        gain, desirable = batch.winner.gain, batch.preference
        if self.offset == "matched":
            return {"gain": gain}
        return {
            "desirable": desirable,
            "gain of desirable": desirable * gain,
            "gain of others": (1 - desirable) * gain,
        }

    def _offset(self, batch: Batch) -> Tensor:
        means = batch.means
        if self.offset == "matched":
            return means["gain"].clamp_min(0)
        if self.offset == "mismatched":
            return means["gain"]
        share = means["desirable"]
        desirable = (means["gain of desirable"] / share).where(share > 0, 0)
        return (desirable + (means["gain of others"] / (1 - share)).where(share < 1, 0)) / 2

    def figures(self, batch: Batch) -> Values:
        """The offset z."""
        return {"z": self._offset(batch)}

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, in [0, 1] for the utility of Kahneman and Tversky."""
        from torch.nn.functional import logsigmoid

        s = 2 * batch.preference - 1
        x = self.beta * batch.scale * (batch.winner.gain - self._offset(batch))
        utility = {
            "kahneman-tversky": lambda: (s * x).sigmoid(),
            "loss-averse": lambda: logsigmoid(s * x),
            "risk-seeking-1": lambda: -s * logsigmoid(-x),
            "risk-seeking-2": lambda: s * (x / 100).exp() - 1,
            "risk-seeking-3": lambda: -logsigmoid(-s * x),
        }[self.utility]()
        better, worse = self.desirable_weight, self.undesirable_weight
        weight = worse + (better - worse) * batch.preference
        return weight * (1 - utility)
