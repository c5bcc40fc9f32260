"""The soft update of TR-DPO (Gorbatovski et al. 2024, arXiv 2404.09656)."""

from typing import ClassVar

from pydantic import Field

from trainers.references.updating import Updating


class Soft(Updating):
    """``ref <- alpha * policy + (1 - alpha) * ref`` every ``tau`` steps (defaults as in TRL)."""

    name: ClassVar[str] = "soft"
    tau: int = Field(512, ge=1)
    alpha: float = Field(0.6, gt=0, le=1)

    @property
    def mix(self) -> float:
        """``alpha``."""
        return self.alpha
