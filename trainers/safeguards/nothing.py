"""No safeguard."""

from __future__ import annotations

from typing import ClassVar

from trainers.objectives.base import Batch
from trainers.safeguards.base import Safeguard


class Nothing(Safeguard):
    """Gradients as they are."""

    name: ClassVar[str] = "none"

    def guard(self, batch: Batch) -> Batch:
        """The batch itself."""
        return batch
