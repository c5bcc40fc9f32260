"""The noising of SmPO (Lu et al., ICML 2025), after ReNoise (Garibi et al. 2024, 2403.14602)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.noising.base import Predict
from trainers.noising.inversion import Inversion, Step

if TYPE_CHECKING:
    from torch import Tensor


class ReNoise(Inversion):
    """A step is made by the mean of two predictions: at where it starts, and at where that leads.

    Defaults of the public code: no fresh noise, 5 steps for Stable Diffusion 1.5; it has 10 for
    SDXL, where the paper says 9.
    """

    name: ClassVar[str] = "renoise"
    steps: int = Field(5, ge=1)

    @property
    def forwards(self) -> int:
        """Two a step."""
        return 2 * self.steps

    def predicted(self, x: Tensor, end: Tensor, predict: Predict, step: Step) -> Tensor:
        """See the base class."""
        first = predict(x, end)
        return (first + predict(step(first), end)) / 2
