"""What a safeguard is."""

from __future__ import annotations

from abc import abstractmethod

from trainers.objectives.base import Averaging, Batch


class Safeguard(Averaging):
    """Changes gradients of pairs, and no value, whatever the objective that follows."""

    @abstractmethod
    def guard(self, batch: Batch) -> Batch:
        """The same values with other gradients; ``batch.means`` are of its own statistics."""
