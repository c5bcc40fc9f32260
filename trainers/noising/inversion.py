"""Noise that the policy itself finds in an image, by going from it towards noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from trainers.backbones import Backbone
from trainers.noising.base import Noising, Normal, Predict

if TYPE_CHECKING:
    from torch import Tensor

Step: TypeAlias = "Callable[[Tensor], Tensor]"
"""Where a prediction leads from the present point, both ``[m, C, H, W]``."""
OFFSET = 1
"""Of the grid in the public code: the ``steps_offset`` of Stable Diffusion's scheduler."""


class Inversion(Noising):
    """DDIM's deterministic steps (Song et al. 2021, arXiv 2010.02502, Eq. 12), from ``x_0`` to t.

    The image counts as what it would be at timestep 0. A step from s to s' takes ``x_s`` apart by
    what the policy predicts for it when told s', and puts it together with the shares of signal and
    noise of s'. Then ``eta`` times the deviation of DDIM's Eq. 16 between the two is added as fresh
    noise. What is regressed on is the noise that leads straight from ``x_0`` to the end,
    ``eps = (x_t - a_t x_0) / b_t``; at t = 0 that is nearly zero, and no policy is run.

    The public code (``JaydenLyh/InPO``, ``JaydenLyh/SmPO``) walks a grid that is ``fixed``: 1, 1 +
    T / steps, and so on, as far as it is below t. So it ends up to T / steps short of t, while
    ``a`` and ``b``, and what the network is told afterwards, are those of t; and its fresh noise
    is that of the step after. It also takes the first image's t for all of a device's batch, and
    is meant to be run one pair at a time. By default every row is brought to its own t in
    ``steps`` equal steps.
    """

    steps: int = Field(10, ge=1)
    grid: Literal["to-t", "fixed"] = "to-t"
    eta: float = Field(0.0, ge=0)

    @abstractmethod
    def predicted(self, x: Tensor, end: Tensor, predict: Predict, step: Step) -> Tensor:
        """The prediction that a step from ``x`` to timesteps ``end`` is made by."""

    def noise(
        self, latents: Tensor, timesteps: Tensor, drawn: Tensor, normal: Normal,
        backbone: Backbone, predict: Predict,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        x, count = latents, len(backbone.snr)
        for k in range(self.steps):
            start, end, after = self._times(timesteps, k, count)
            (a, b), there = backbone.shares(start), backbone.shares(end)

            def step(prediction: Tensor) -> Tensor:
                clean, noise = backbone.split(prediction, x, a, b)  # noqa: B023
                return there[0] * clean + there[1] * noise  # noqa: B023

            moved = step(self.predicted(x, end, predict, step))
            if self.eta:
                near, far = (end, after) if self.grid == "fixed" else (start, end)
                spread = _deviation(backbone.shares(near), backbone.shares(far))
                moved = moved + self.eta * spread * normal(f"inversion {k}")
            goes = (end < timesteps) if self.grid == "fixed" else (end > start)
            x = moved.where(goes.view(-1, 1, 1, 1), x)
        a, b = backbone.shares(timesteps)
        return (x - a * latents) / b

    def _times(self, timesteps: Tensor, k: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where step ``k`` starts and ends, and where one after it would end; all below T."""
        if self.grid == "to-t":
            start, end = (timesteps * j // self.steps for j in (k, k + 1))
            return start, end, end
        ratio = count // self.steps
        times = [max(0, min(OFFSET + j * ratio, count - 1)) for j in (k - 1, k, k + 1)]
        start, end, after = (timesteps.new_full(timesteps.shape, time) for time in times)
        return start, end, after


def _deviation(near: tuple[Tensor, Tensor], far: tuple[Tensor, Tensor]) -> Tensor:
    """Sigma of DDIM's Eq. 16 with eta 1, ``[m, 1, 1, 1]``, for shares (a, b) of two timesteps."""
    (a, b), (far_a, far_b) = near, far
    kept = (far_a / a).square() * b.square()
    return b / far_b * (far_b.square() - kept).clamp_min(0).sqrt()
