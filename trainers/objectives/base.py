"""What an objective is: a pure function of the errors of a preference pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairErrors:
    """Denoising errors of ``n`` pairs: per-sample means over C, H, W of squared differences.

    Each is ``float32[n]``, at least 0, with one timestep and one noise per pair. Only the policy's
    errors carry gradients.
    """

    policy_winner: Tensor
    policy_loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor
    preference: Tensor | float = 1.0
    """Probability that the winner is preferred, ``[n]``: 1, or 0.5 for a tie."""

    @property
    def margin(self) -> Tensor:
        """``(R_w - L_w) - (R_l - L_l)``, ``[n]``: positive if the pair is ranked correctly."""
        winner = self.reference_winner - self.policy_winner
        return winner - (self.reference_loser - self.policy_loser)


class Objective(Settings, ABC):
    """A preference objective. Its fields are its settings; it holds no state."""

    soft_labels: ClassVar[bool] = False
    """Whether it makes use of ``preference``; others are refused where ties are kept."""
    referenced: ClassVar[bool] = True
    """Whether it makes use of the reference's errors; others are given a frozen reference, whatever
    rule is asked for: a rule that nothing depends on makes no other run."""

    @property
    def strength(self) -> float | None:
        """What other sources call beta (see ``trainers.conventions``); None if it has none."""
        return None

    @abstractmethod
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        """Loss of each pair, ``[n]``.

        Args:
            errors: The errors of the pairs.
            scale: ``lambda(t)`` of each pair, ``[n]``, 1 where the reward scale is constant.
        """
