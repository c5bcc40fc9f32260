"""What rewards on top of a CLIP model have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Reward, Scores, check_lengths

if TYPE_CHECKING:
    from bench.rewards.models import Tower

MODEL_FILES = ("config.json", "model.safetensors")
TOKENIZER_FILE = "tokenizer.json"


class TowerReward(Reward):
    """A reward on top of one CLIP model."""

    batch_size = 16
    """Images per forward pass. Scores depend on it by float32 rounding only."""
    _tower: "Tower | None" = None

    @property
    def tower(self) -> "Tower":
        """The loaded CLIP model."""
        from bench.rewards.models import Tower

        if self._tower is None:
            self._tower = Tower(self.files.paths, self.device)
        return self._tower

    def load(self) -> None:
        """Read the weights; see :class:`Reward`."""
        _ = self.tower

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Score image ``i`` against prompt ``i``; see :class:`Reward`."""
        check_lengths(images, prompts)
        self.load()
        scores = np.empty(len(images), dtype=np.float32)
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            scores[part] = self._score_batch(images[part], prompts[part])
        return scores

    @abstractmethod
    def _score_batch(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> NDArray[np.floating]:
        """Scores of one non-empty batch, ``[n]``."""
