"""What the trainer asks of preference pairs, wherever their latents come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from trainers.backbones import Condition, Moments

if TYPE_CHECKING:
    from torch import Tensor


class PairData(ABC):
    """Pairs in the order of their source: the same rows give the same tensors on every call."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one latent."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    @abstractmethod
    def images(self, rows: Tensor) -> tuple[Moments, Moments]:
        """Moments of winners and of losers, each ``[n, C, H, W]``, of rows ``int64[n]``."""

    @abstractmethod
    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        """The condition of each pair, ``[n, ...]``.

        Where ``dropped`` (``bool[n]``) holds, that of the empty prompt. A backbone that is
        conditioned on sizes and crops finds them as ``micro``, ``float32[n, 6]``.
        """

    @abstractmethod
    def preference(self, rows: Tensor) -> Tensor:
        """Probability that the winner is preferred, ``float64[n]``: 1, or 0.5 for a tie."""
