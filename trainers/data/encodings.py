"""Encodings of images and prompts: made in the loop, or read from a cache of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.backbones import Backbone, Condition, Moments
from trainers.data.cache import TensorCache
from trainers.data.index import Index
from trainers.data.prepare import Pixels, draw, image_key, image_size, pixels, plan, prompt_key
from trainers.data.settings import DataSettings
from trainers.data.sources import BadPair, Rows
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text


class Encodings(ABC):
    """Encodings of the pairs of an index, in float32, rounded to the precision of the settings."""

    @abstractmethod
    def images(self, pairs: Sequence[int], sides: Sequence[int]) -> Moments:
        """Moments of image ``sides[i]`` (0 or 1) of pair ``pairs[i]``, ``[n, C, H, W]``."""

    @abstractmethod
    def prompts(self, prompts: Sequence[str]) -> Condition:
        """What the network is told of each prompt, ``[n, ...]``."""


class Encoder:
    """The frozen encoders of a backbone under settings; ``identity`` stands for their weights."""

    def __init__(self, backbone: Backbone, settings: DataSettings, identity: str) -> None:
        """``identity`` is a hash of the weights, or of all of the base model."""
        self.backbone = backbone
        self.settings = settings
        self.identity = f"{backbone.name} {identity}"
        self._dtype: torch.dtype = getattr(torch, settings.precision)

    def images(self, arrays: Sequence[Pixels]) -> dict[str, Tensor]:
        """``mean`` and ``std`` of images of one size, in the precision of the settings."""
        stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        mean, std = self.backbone.encode_images(stacked.float() / 127.5 - 1)
        return {"mean": mean.to(self._dtype).cpu(), "std": std.to(self._dtype).cpu()}

    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encoded prompts, made and given in the precision of the settings."""
        told = self.backbone.encode_prompts(prompts, self._dtype)
        return {name: values.to(self._dtype).cpu() for name, values in told.items()}


class EncodingCache:
    """Where encodings that go together lie: those of one encoder, size and precision."""

    def __init__(self, root: Path, encoder: Encoder) -> None:
        """Look below ``root``, which may hold the encodings of other encoders, too."""
        settings = encoder.settings
        kind = [encoder.identity, settings.resolution, settings.precision]
        folder = root / sha256_text(canonical_json(kind))[:16]
        self.encoder = encoder
        self.images = TensorCache(folder / "images")
        self.prompts = TensorCache(folder / "prompts")

    def refresh(self) -> None:
        """See what was added, by whichever process, since this object first looked."""
        self.images.refresh()
        self.prompts.refresh()

    def prompt_keys(self, prompts: Sequence[str]) -> list[bytes]:
        """The key of each prompt."""
        settings, identity = self.encoder.settings, self.encoder.identity
        return [prompt_key(prompt, settings, identity) for prompt in prompts]

    def holds(self, index: Index) -> bool:
        """Whether all that the pairs of an index need is there."""
        keys = self.prompt_keys([*dict.fromkeys(index.prompts), ""])
        texts = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        images = self.images.missing(index.keys.reshape(-1, 32))
        return not (images.any() or self.prompts.missing(texts).any())


class CachedEncodings(Encodings):
    """Read from a cache; neither the source nor the encoders are touched."""

    def __init__(self, index: Index, cache: EncodingCache) -> None:
        self.index = index
        self.cache = cache

    def images(self, pairs: Sequence[int], sides: Sequence[int]) -> Moments:
        """See the base class."""
        found = self.cache.images.get(self.index.keys[list(pairs), list(sides)])
        return Moments(found["mean"], found["std"])

    def prompts(self, prompts: Sequence[str]) -> Condition:
        """See the base class."""
        keys = b"".join(self.cache.prompt_keys(prompts))
        return self.cache.prompts.get(np.frombuffer(keys, np.uint8).reshape(-1, 32))


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
        found = self.encoder.images(arrays)
        return Moments(found["mean"].float(), found["std"].float())

    def _pixels(self, pair: int, side: int) -> Pixels:
        row, settings = int(self.index.rows[pair]), self.encoder.settings
        try:
            data = self.rows.images(row)[side]
            prepared = plan(image_size(data), settings, draw(settings, row, side))
            key = image_key(data, prepared, settings, self.encoder.identity)
            if key != self.index.keys[pair, side].tobytes():
                raise BadPair("it is another one now")
            return pixels(data, prepared, settings)
        except BadPair as error:
            raise UserError(
                f"{self.rows.place(row)}: image {side} was changed since the run began ({error}): "
                "run the same command again"
            ) from error

    def prompts(self, prompts: Sequence[str]) -> Condition:
        """See the base class."""
        return {name: values.float() for name, values in self.encoder.prompts(prompts).items()}
