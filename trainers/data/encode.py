"""One pass over the images of a source: which can be read, and their encodings, if they are kept.

It can be killed at any time: what a cache holds already is neither decoded nor encoded again.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainers.data.ahead import work_ahead
from trainers.data.cache import TensorCache, as_keys
from trainers.data.encoder import Encoder
from trainers.data.encodings import EncodingCache
from trainers.data.index import Index
from trainers.data.preprocess import Geometry, Pixels, preprocess
from trainers.data.select import Selected
from trainers.data.sources import BadPair, Rows
from trainers.errors import UserError
from trainers.files import clear_parts

SHARD = 512
"""Encodings in a file of a cache: what a killed process may lose."""
T = TypeVar("T")


@dataclass(frozen=True)
class Dropped:
    """A pair that cannot be used, and why."""

    row: int
    place: str
    reason: str


@dataclass(frozen=True)
class EncodedPairs:
    """What came of a pass."""

    index: Index
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True)
class _Image:
    """An image that was looked at; its pixels only if they have to be encoded."""

    key: bytes
    geometry: Geometry
    pixels: Pixels | None


def encode_pairs(
    rows: Rows,
    selected: Selected,
    encoder: Encoder,
    cache: EncodingCache | None = None,
    batch: int = 32,
    shard: int = SHARD,
    threads: int | None = None,
    prefixes: Sequence[str] = ("",),
    report: Callable[[int], None] = lambda images: None,
) -> EncodedPairs:
    """Look at every image of the selected rows, and fill ``cache`` with their encodings.

    A pair with an image that is damaged or missing is dropped; the others keep their order.

    Args:
        rows: The source.
        selected: Rows to use.
        encoder: What encodes; without a cache only its settings are used.
        cache: Where encodings go; None to find out what can be read, and no more.
        batch: Images or prompts in one forward pass.
        shard: Encodings in one file of the cache.
        threads: How many decode images; None for one a core.
        prefixes: Captions are encoded after each of them.
        report: Told the number of images that are done.

    Raises:
        UserError: If no pair is left, or images differ in size and no resolution is set.
    """
    if cache:
        clear_parts(cache.images.folder)
        clear_parts(cache.prompts.folder)
    writer = _Writer(encoder.encode_images, cache.images, batch, shard) if cache else None
    builder = _IndexBuilder()
    dropped: list[Dropped] = []

    def inspect(row: int, data: tuple[bytes, bytes]) -> tuple[_Image, _Image]:
        zero, one = (_inspect(data[side], row, side, encoder, cache) for side in (0, 1))
        return zero, one

    seen = work_ahead(rows, selected.rows.tolist(), inspect, threads)
    for done, (row, pair) in enumerate(seen, 1):
        if isinstance(pair, BadPair):
            dropped.append(Dropped(row, rows.place(row), str(pair)))
        else:
            builder.add(row, pair, rows)
            for image in pair:
                if writer and image.pixels is not None:
                    writer.put(image.key, image.pixels)
        report(2 * done)
    if not builder.rows:
        raise UserError(
            f"no pair can be used: all {len(dropped)} are damaged, the first at "
            f"{dropped[0].place}: {dropped[0].reason}"
        )
    index = builder.index(rows)
    if cache and writer:
        writer.close()
        _encode_prompts(index.texts(prefixes), encoder, cache, batch, shard)
        cache.refresh()
    return EncodedPairs(index, tuple(dropped))


def _inspect(
    data: bytes, row: int, side: int, encoder: Encoder, cache: EncodingCache | None
) -> _Image:
    geometry = encoder.geometry(data, row, side)
    key = encoder.image_key(data, geometry)
    if cache and not cache.images.missing(as_keys([key]))[0]:
        return _Image(key, geometry, None)
    return _Image(key, geometry, preprocess(data, geometry, encoder.settings))


class _IndexBuilder:
    """What an index is made of, packed: a million pairs take 0.2 GB."""

    def __init__(self) -> None:
        self.rows = array("q")
        self.keys = bytearray()
        self.micro = array("q")
        self.target: tuple[int, int] | None = None

    def add(self, row: int, pair: tuple[_Image, _Image], rows: Rows) -> None:
        """Take a pair.

        Raises:
            UserError: If an image is not of the size of the others.
        """
        for image in pair:
            size = image.geometry.target
            self.target = self.target or size
            if size != self.target:
                raise UserError(
                    f"{rows.place(row)}: expected an image of {self.target[0]} x {self.target[1]} "
                    f"pixels (height x width) as in the first pair, got {size[0]} x {size[1]}: "
                    "set a resolution"
                )
            self.keys += image.key
            self.micro.extend(image.geometry.micro)
        self.rows.append(row)

    def index(self, rows: Rows) -> Index:
        """All that was taken."""
        where = np.array(self.rows, dtype=np.int64)
        return Index(
            where,
            tuple(rows.prompts.take(where).to_pylist()),
            rows.labels[where],
            np.frombuffer(bytes(self.keys), np.uint8).reshape(-1, 2, 32),
            np.array(self.micro, dtype=np.int64).reshape(-1, 2, 6),
            {name: values[where] for name, values in rows.columns.items()},
        )


def _encode_prompts(
    prompts: Sequence[str], encoder: Encoder, cache: EncodingCache, batch: int, shard: int
) -> None:
    keys = [encoder.prompt_key(prompt) for prompt in prompts]
    writer = _Writer(encoder.encode_prompts, cache.prompts, batch, shard)
    for prompt, key, lacking in zip(
        prompts, keys, cache.prompts.missing(as_keys(keys)), strict=True
    ):
        if lacking:
            writer.put(key, prompt)
    writer.close()


class _Writer(Generic[T]):
    """Encodes items in batches and stores them in files of ``shard``."""

    def __init__(
        self,
        encode: Callable[[Sequence[T]], dict[str, Tensor]],
        cache: TensorCache,
        batch: int,
        shard: int,
    ) -> None:
        self.encode = encode
        self.cache = cache
        self.batch = batch
        self.shard = shard
        self.seen: set[bytes] = set()
        self.waiting: list[tuple[bytes, T]] = []
        self.keys: list[bytes] = []
        self.parts: list[dict[str, Tensor]] = []

    def put(self, key: bytes, item: T) -> None:
        """Take an item, unless one with its key was here before."""
        if key in self.seen:
            return
        self.seen.add(key)
        self.waiting.append((key, item))
        if len(self.waiting) == self.batch:
            self._encode()

    def close(self) -> None:
        """Store what is left."""
        if self.waiting:
            self._encode()
        if self.keys:
            self._store()

    def _encode(self) -> None:
        keys, items = zip(*self.waiting, strict=True)
        self.waiting = []
        self.keys += keys
        self.parts.append(self.encode(items))
        if len(self.keys) >= self.shard:
            self._store()

    def _store(self) -> None:
        names = self.parts[0]
        self.cache.add(self.keys, {n: torch.cat([part[n] for part in self.parts]) for n in names})
        self.keys, self.parts = [], []
