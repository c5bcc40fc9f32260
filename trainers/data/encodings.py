"""Encodings of images and prompts: read from a cache, or made whenever they are asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from trainers.backbones import Condition, Moments
from trainers.data.cache import Bytes, Lost, TensorCache, as_keys
from trainers.data.encoder import Encoder
from trainers.data.index import Index
from trainers.data.preprocess import Pixels, preprocess
from trainers.data.sources import BadPair, Rows
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text
from trainers.input.image import BadImage


class Encodings(ABC):
    """Encodings of the pairs of an index, in float32, rounded to the precision of the settings."""

    @abstractmethod
    def images(self, pairs: Sequence[int], sides: Sequence[int]) -> Moments:
        """Moments of image ``sides[i]`` (0 or 1) of pair ``pairs[i]``, ``[n, C, H, W]``."""

    @abstractmethod
    def prompts(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, ``[n, ...]``."""


FORMAT = 2
"""Of the files of a cache; those of another lie in other folders."""


class EncodingCache:
    """Where encodings that go together lie: those of one encoder, size and precision."""

    def __init__(self, root: Path, encoder: Encoder) -> None:
        """Look below ``root``, which may hold the encodings of other encoders, too."""
        settings = encoder.settings
        kind = [FORMAT, encoder.identity, settings.resolution, settings.precision]
        folder = root / sha256_text(canonical_json(kind))[:16]
        self.encoder = encoder
        self.images = TensorCache(folder / "images")
        self.prompts = TensorCache(folder / "prompts")

    def refresh(self) -> None:
        """See what was added, by whichever process, since this object first looked."""
        self.images.refresh()
        self.prompts.refresh()

    def holds(self, index: Index, prefixes: Sequence[str] = ("",)) -> bool:
        """Whether all that the pairs of an index need is there, under prefixes of captions."""
        prompts = [self.encoder.prompt_key(text) for text in index.texts(prefixes)]
        images = self.images.missing(index.keys.reshape(-1, 32))
        return not (images.any() or self.prompts.missing(as_keys(prompts)).any())


class CachedEncodings(Encodings):
    """Read from a cache; neither the source nor the encoders are touched, unless one is lost."""

    def __init__(
        self, index: Index, cache: EncodingCache, remake: Callable[[], None] | None = None
    ) -> None:
        """``remake`` makes what the cache has lost; without it, that is told."""
        self.index = index
        self.cache = cache
        self._remake = remake

    def images(self, pairs: Sequence[int], sides: Sequence[int]) -> Moments:
        """See the base class."""
        found = self._get(self.cache.images, self.index.keys[list(pairs), list(sides)])
        return Moments(found["mean"], found["std"])

    def prompts(self, prompts: Sequence[str]) -> Condition:
        """See the base class."""
        keys = [self.cache.encoder.prompt_key(prompt) for prompt in prompts]
        return self._get(self.cache.prompts, as_keys(keys))

    def _get(self, tensors: TensorCache, keys: Bytes) -> dict[str, Tensor]:
        while True:
            try:
                return tensors.get(keys)
            except Lost:
                if self._remake is None:
                    raise
                self._remake()


class LiveEncodings(Encodings):
    """Made whenever they are asked for, from the images of the source.

    Rows are asked for at random, and parquet is read by row groups: files with small row groups
    (some hundred rows) serve this better than files with large ones.
    """

    def __init__(self, index: Index, rows: Rows, encoder: Encoder) -> None:
        self.index = index
        self.rows = rows
        self.encoder = encoder

    def images(self, pairs: Sequence[int], sides: Sequence[int]) -> Moments:
        """See the base class.

        Raises:
            UserError: If an image is gone, or not the one that the index was made of.
        """
        arrays = [self._pixels(pair, side) for pair, side in zip(pairs, sides, strict=True)]
        found = self.encoder.encode_images(arrays)
        return Moments(found["mean"].float(), found["std"].float())

    def _pixels(self, pair: int, side: int) -> Pixels:
        row = int(self.index.rows[pair])
        try:
            data = self.rows.images(row)[side]
            geometry = self.encoder.geometry(data, row, side)
            if self.encoder.image_key(data, geometry) != self.index.keys[pair, side].tobytes():
                raise BadPair("it is another one now")
            return preprocess(data, geometry, self.encoder.settings)
        except (BadPair, BadImage) as error:
            raise UserError(
                f"{self.rows.place(row)}: image {side} was changed since the run began ({error}): "
                "run the same command again"
            ) from error

    def prompts(self, prompts: Sequence[str]) -> Condition:
        """See the base class."""
        return {
            name: values.float() for name, values in self.encoder.encode_prompts(prompts).items()
        }
