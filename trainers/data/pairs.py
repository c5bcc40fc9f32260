"""Preference pairs as the trainer sees them."""

import numpy as np
import torch
from torch import Tensor

from trainers.backbones import Condition, Moments
from trainers.data.base import PairData
from trainers.data.columns import of_sides, preferences
from trainers.data.encodings import Encodings
from trainers.data.index import Index
from trainers.data.settings import DataSettings


class Pairs(PairData):
    """The pairs of an index under settings."""

    def __init__(
        self, index: Index, settings: DataSettings, encodings: Encodings, micro: bool = False
    ) -> None:
        """``micro``: whether the backbone is conditioned on sizes and crops."""
        self.index = index
        self.encodings = encodings
        labels = preferences(index.rows, index.labels, index.columns, settings)
        winner = (labels < 0.5).astype(np.int64)
        self._winner = torch.from_numpy(winner)
        named = of_sides(index.columns, winner)
        self._columns = {name: torch.from_numpy(values) for name, values in named.items()}
        self._preference = torch.from_numpy(np.maximum(labels, 1 - labels))
        sizes = index.micro.copy()
        if settings.micro == "hard-coded":
            sizes[..., :2] = sizes[..., 4:]
            sizes[..., 2:4] = 0
        self._micro = torch.from_numpy(sizes).float() if micro else None

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """See the base class."""
        return tuple(self.encodings.images([0], [0]).mean.shape[1:])

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.index)

    def images(self, rows: Tensor) -> tuple[Moments, Moments]:
        """See the base class."""
        first = torch.zeros_like(rows)
        both = self.chosen_images(rows.repeat(2), torch.cat([first, first + 1]))
        (w_mean, l_mean), (w_std, l_std) = both.mean.chunk(2), both.std.chunk(2)
        return Moments(w_mean, w_std), Moments(l_mean, l_std)

    def chosen_images(self, rows: Tensor, sides: Tensor) -> Moments:
        """See the base class; only these are read."""
        return self.encodings.images(rows.tolist(), (self._winner[rows] ^ sides).tolist())

    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        """See the base class: that of the winner."""
        return self.chosen_condition(rows, dropped, torch.zeros_like(rows))

    def chosen_condition(
        self, rows: Tensor, dropped: Tensor, sides: Tensor, prefixes: tuple[str, str] = ("", "")
    ) -> Condition:
        """See the base class."""
        each = zip(rows.tolist(), dropped.tolist(), sides.tolist(), strict=True)
        texts = self.encodings.prompts(
            ["" if drop else prefixes[side] + self.index.prompts[row] for row, drop, side in each]
        )
        if self._micro is None:
            return texts
        return {**texts, "micro": self._micro[rows, self._winner[rows] ^ sides]}

    def preference(self, rows: Tensor) -> Tensor:
        """See the base class."""
        return self._preference[rows]

    def columns(self, rows: Tensor) -> dict[str, Tensor]:
        """See the base class; those of images by winner and loser (``trainers.data.columns``)."""
        return {name: values[rows] for name, values in self._columns.items()}
