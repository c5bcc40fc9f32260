"""The stable reference update of Kang et al. 2025 (arXiv 2505.18736)."""

from typing import ClassVar

from pydantic import Field

from trainers.references.updating import Updating


class HardCopy(Updating):
    """``ref <- policy`` every ``tau`` steps, while the divergence stays within ``delta``.

    The paper searches tau in {16, 32, 64} and takes delta = 0.005 (SD1.5) and 0.002 (SDXL).
    """

    name: ClassVar[str] = "hard-copy"
    tau: int = Field(16, ge=1)
    delta: float | None = Field(0.005, ge=0)

    @property
    def mix(self) -> float:
        """The whole policy."""
        return 1.0
