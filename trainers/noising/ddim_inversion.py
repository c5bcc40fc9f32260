"""The noising of DDIM-InPO (Lu et al., CVPR 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.noising.base import Predict
from trainers.noising.inversion import Inversion, Step

if TYPE_CHECKING:
    from torch import Tensor


class DDIMInversion(Inversion):
    """One prediction a step. Defaults of the public code: 10 steps, eta 0.1."""

    name: ClassVar[str] = "ddim-inversion"
    eta: float = Field(0.1, ge=0)

    @property
    def forwards(self) -> int:
        """One a step."""
        return self.steps

    def predicted(self, x: Tensor, end: Tensor, predict: Predict, step: Step) -> Tensor:
        """See the base class."""
        return predict(x, end)
