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

    def chosen_images(self, rows: Tensor, sides: Tensor) -> Moments:
        """Moments of one image of each row, ``[n, C, H, W]``; others need not be read.

        Args:
            rows: Pairs, ``int64[n]``.
            sides: 0 for the winner of a pair, 1 for the loser, ``int64[n]``.
        """
        winner, loser = self.images(rows)
        won = (sides == 0).view(-1, 1, 1, 1)
        return Moments(*(one.where(won, two) for one, two in zip(winner, loser, strict=True)))

    @abstractmethod
    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        """The condition of each pair, ``[n, ...]``, by which both of its images are run.

        Where ``dropped`` (``bool[n]``) holds, that of the empty prompt. A backbone that is
        conditioned on sizes and crops finds them as ``micro``, ``float32[n, 6]``.
        """

    def chosen_condition(
        self, rows: Tensor, dropped: Tensor, sides: Tensor, prefixes: tuple[str, str] = ("", "")
    ) -> Condition:
        """As :meth:`condition`, for the images of :meth:`chosen_images` that are run alone.

        ``prefixes`` stand before the captions of winners and of losers, unless those are dropped.
        """
        return self.condition(rows, dropped)

    @abstractmethod
    def preference(self, rows: Tensor) -> Tensor:
        """Probability that the winner is preferred, ``float64[n]``, at least 0.5."""

    def columns(self, rows: Tensor) -> dict[str, Tensor]:
        """Whatever else is known of a pair, by name, ``float[n]``; nothing by default."""
        return {}
