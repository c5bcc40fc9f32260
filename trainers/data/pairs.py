"""Preference pairs as the trainer sees them."""

import numpy as np
import torch
from torch import Tensor

from trainers.backbones import Condition, Moments
from trainers.data.base import PairData
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
        labels = 1 - index.labels if settings.swap_labels else index.labels
        self._winner = (labels < 0.5).astype(np.int64)
        self._preference = torch.from_numpy(np.maximum(labels, 1 - labels))
        # One condition serves both images: that of the winner.
        sizes = index.micro[np.arange(len(index)), self._winner]
        if settings.micro == "hard-coded":
            sizes[:, :2] = sizes[:, 4:]
            sizes[:, 2:4] = 0
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
        pairs, winner = rows.tolist(), self._winner[rows.numpy()]
        both = self.encodings.images(2 * pairs, np.concatenate([winner, 1 - winner]).tolist())
        (w_mean, l_mean), (w_std, l_std) = both.mean.chunk(2), both.std.chunk(2)
        return Moments(w_mean, w_std), Moments(l_mean, l_std)

    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        """See the base class."""
        named = zip(rows.tolist(), dropped.tolist(), strict=True)
        texts = self.encodings.prompts(["" if d else self.index.prompts[row] for row, d in named])
        return texts if self._micro is None else {**texts, "micro": self._micro[rows]}

    def preference(self, rows: Tensor) -> Tensor:
        """See the base class."""
        return self._preference[rows]
