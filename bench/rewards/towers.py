"""What rewards on top of a CLIP model have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Reward, Scores, check_lengths
from bench.rewards.kit.pixels import Preprocessing, preprocess
from bench.rewards.kit.text import CLIP_END, Ids, encode, read_tokenizer
from trainers.machine.precision import BYTES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from bench.rewards.kit.models import Tower

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
MODEL_FILES = (CONFIG_FILE, MODEL_FILE)
TOKENIZER_FILE = "tokenizer.json"
TEXT_77 = "tokenizer.json, truncated to 77 tokens"
TEXT_16 = "tokenizer.json, truncated to 16 tokens"


class TowerReward(Reward):
    """A reward on top of one CLIP model."""

    dtypes = tuple(BYTES)
    preprocessing: ClassVar[Preprocessing]
    """From images to pixels; its text is the card's."""
    model_file: ClassVar[str] = MODEL_FILE

    @property
    def tower(self) -> "Tower":
        """The CLIP model, loaded unless a reward that shares it has done so."""
        from bench.rewards.kit.models import Tower

        paths, dtype = self.files.paths, self.card.dtype
        return self.shared.model(
            self.model_key,
            self.memory,
            lambda: Tower(paths[CONFIG_FILE], paths[self.model_file], self.device, dtype),
        )

    @property
    def model_key(self) -> tuple[str, ...]:
        """See :class:`bench.rewards.base.Reward`."""
        sha256 = self.files.sha256
        return (
            "clip",
            sha256[CONFIG_FILE],
            sha256[self.model_file],
            self.device,
            self.card.dtype,
        )

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer, truncating to the length of the model."""
        tower = self.tower
        path = self.files.paths[TOKENIZER_FILE]
        words = range(tower.words, tower.words + 1)
        return read_tokenizer(path, tower.length, CLIP_END, words)

    def tokens(self, prompts: Sequence[str]) -> Ids:
        """Token ids ``[n, length]``."""
        return encode(self.tokenizer, prompts)[0]

    def load(self) -> None:
        """Read the weights; see :class:`Reward`."""
        _ = self.tower

    def image_features(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        """Features of length 1, ``[n, d]``: one forward pass serves every reward of the tower."""
        tower = self.tower
        pixels = preprocess(images, self.preprocessing, tower.side, self.shared)
        rows, place = self.shared.rows(("see", *self.model_key), pixels, tower.see, self.batch_size)
        return rows[place]

    def text_features(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Features of length 1, ``[n, d]``: one forward pass per distinct prompt, on its own."""
        end = self.tokenizer.token_to_id(CLIP_END)
        # What follows the first end token is never looked at.
        tokens = [ids[: int((ids == end).argmax()) + 1] for ids in self.tokens(prompts)]
        rows, place = self.shared.rows(("read", *self.model_key), tokens, self.tower.read, 1)
        return rows[place]

    def cosines(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosine of image ``i`` and prompt ``i``: ``float64[n]``."""
        values: NDArray[np.float64] = (
            self.image_features(images) * self.text_features(prompts)
        ).sum(-1)
        return values

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Score image ``i`` against prompt ``i``; see :class:`Reward`."""
        check_lengths(images, prompts)
        self.load()
        if not images:
            return np.empty(0, np.float32)
        return self._score(images, prompts).astype(np.float32)

    @abstractmethod
    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.floating]:
        """Scores of at least one pair, ``[n]``."""
