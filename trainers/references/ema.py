"""A reference that is the moving average of the policy."""

from typing import ClassVar

from pydantic import Field

from trainers.references.updating import Updating


class EMA(Updating):
    """``ref <- decay * ref + (1 - decay) * policy`` after every step.

    Decays of 0.95 to 0.995 are those of Linear-DPO (arXiv 2605.21123).
    """

    name: ClassVar[str] = "ema"
    tau: int = Field(1, ge=1)
    decay: float = Field(0.99, ge=0, lt=1)
    monitor: bool = False

    @property
    def mix(self) -> float:
        """``1 - decay``."""
        return 1.0 - self.decay
