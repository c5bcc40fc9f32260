"""Rankings of several images for a prompt, turned into pairs.

The fields are by default those of the test split of HPD v2 (Wu et al. 2023, arXiv 2306.09341;
``prompt``, ``image_path`` and ``rank``, where 1 is the best). Its train split has ``file_path`` and
``human_preference``, where 1 is the preferred image: ``images: file_path``, ``ranks:
human_preference``, ``best: highest``.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainers.data.hashes import remembered_sha256
from trainers.data.sources.base import (
    BadPair,
    Rows,
    Source,
    file_hashes,
    read_inside,
    read_objects,
)
from trainers.data.sources.shards import Shards, as_bytes, find_shards
from trainers.errors import UserError, refuse
from trainers.files import canonical_json, sha256_text
from trainers.input.parquet import as_lists, as_texts, holds_lists_of_images
from trainers.input.text import as_text

Which = Literal["all", "best-worst", "adjacent"]
Best = Literal["lowest", "highest"]


class Rankings(Source):
    """A json or jsonl file of rankings with paths of images, or parquet with their bytes."""

    name: ClassVar[str] = "rankings"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    path: str
    """A json (list) or jsonl file, or as for ``parquet``, but not on the Hub."""
    pairs: Which = "all"
    """Every two images of a ranking; its best and worst; or neighbours in it."""
    best: Best = "lowest"
    """Which rank is the best one."""
    prompt: str = "prompt"
    images: str = "image_path"
    """Field of the list of images: paths in the file's folder or, in parquet, encoded images."""
    ranks: str = "rank"
    """Field of the list of ranks. Equal ranks are ties."""

    def open(self) -> Rows:
        """See the base class."""
        if Path(self.path).suffix in (".json", ".jsonl"):
            return _from_json(self)
        return _from_parquet(self)

    def key(self, files: Sequence[object]) -> str:
        """Identity of the pairs that files with these hashes make."""
        settings = self.model_dump(mode="json", exclude={"path"})
        return sha256_text(canonical_json([settings, list(files)]))


@dataclass(frozen=True, eq=False)
class _RankedRows(Rows):
    source: Rankings
    lists: "_Paths | Shards"
    of: NDArray[np.int64]
    """``[N, 3]``: the ranking, and the numbers of images 0 and 1 in it."""
    sizes: tuple[int, ...]
    """How many ranks each ranking has."""

    def images(self, row: int) -> tuple[bytes, bytes]:
        """See the base class."""
        ranking, first, second = self.of[row].tolist()
        (images,) = self.lists.values(ranking, (self.source.images,))
        count = None if images is None else len(images)
        if count != self.sizes[ranking]:
            raise BadPair(f"expected {self.sizes[ranking]} images, one for each rank, got {count}")
        return self._bytes(images[first]), self._bytes(images[second])

    def _bytes(self, image: Any) -> bytes:
        if isinstance(self.lists, _Paths):
            return read_inside(self.lists.folder, image)
        data = as_bytes(image)
        if data is None:
            raise BadPair("an image of the ranking has no bytes")
        return data

    def place(self, row: int) -> str:
        """See the base class."""
        ranking, first, second = self.of[row].tolist()
        return f"{self.lists.place(ranking)} images {first} and {second}"

    def sha256(self) -> str:
        """See the base class."""
        return self.source.key([self.lists.sha256()])


@dataclass(frozen=True)
class _Paths:
    """The rankings of a json file."""

    file: Path
    places: list[str]
    images: list[list[str]]
    """Names of the images of each."""

    @property
    def folder(self) -> Path:
        return self.file.parent

    def values(self, row: int, columns: tuple[str, ...]) -> list[list[str]]:
        return [self.images[row]]

    def place(self, row: int) -> str:
        return self.places[row]

    def sha256(self) -> str:
        names = sorted({name for images in self.images for name in images})
        return sha256_text(
            canonical_json([remembered_sha256(self.file), file_hashes(self.folder, names)])
        )


def _from_json(source: Rankings) -> Rows:
    file, fields = Path(source.path), (source.prompt, source.images, source.ranks)
    places, prompts, images, ranks = [], [], [], []
    problems: list[str] = []
    for place, row in read_objects(file, fields):
        try:
            prompts.append(as_text(row[source.prompt], place))
            images.append(_names(row[source.images], place))
            ranks.append(row[source.ranks])
            places.append(place)
        except UserError as error:
            problems.append(str(error))
    refuse(problems)
    lists = _Paths(file, places, images)
    return _ranked(source, lists, prompts, ranks, [len(names) for names in images])


def _names(value: object, place: str) -> list[str]:
    if not isinstance(value, list):
        raise UserError(
            f"{place}: expected a list of names of images, got a {type(value).__name__}"
        )
    return [as_text(name, place, "the name of an image") for name in value]


def _from_parquet(source: Rankings) -> Rows:
    shards = Shards(find_shards(source.path, "**/*.parquet", key="path"), ())
    shards.require((source.images,), holds_lists_of_images)
    table = shards.table({source.prompt: as_texts, source.ranks: as_lists})
    prompts, ranks = (table[name].to_pylist() for name in (source.prompt, source.ranks))
    return _ranked(source, shards, prompts, ranks)


def _ranked(
    source: Rankings,
    lists: "_Paths | Shards",
    prompts: list[str],
    ranks: Sequence[object],
    counts: Sequence[int] | None = None,
) -> Rows:
    """Pairs of rankings; ``counts`` says how many images each has, where that is known by now."""
    texts: list[str] = []
    labels: list[float] = []
    of: list[tuple[int, int, int]] = []
    sizes: list[int] = []
    problems: list[str] = []
    for number, (prompt, values) in enumerate(zip(prompts, ranks, strict=True)):
        try:
            found = _numbers(values, counts[number] if counts else None)
        except ValueError as error:
            problems.append(f"{lists.place(number)}: {error}")
            continue
        sizes.append(len(found))
        for first, second, label in _pairs(found, source.best, source.pairs):
            texts.append(prompt)
            labels.append(label)
            of.append((number, first, second))
    refuse(problems)
    where = np.array(of, dtype=np.int64).reshape(-1, 3)
    prompts_of = pa.chunked_array([pa.array(texts, pa.large_string())])
    return _RankedRows(
        prompts_of, np.array(labels, dtype=np.float64), source, lists, where, tuple(sizes)
    )


def _numbers(values: object, count: int | None) -> list[float]:
    """The ranks of a ranking, one for each image.

    Raises:
        ValueError: If they are something else.
    """
    told = "its images" if count is None else f"{count} images"
    expected = f"expected one rank for each of {told}, a finite number"
    if not isinstance(values, list):
        raise ValueError(f"{expected}, got {'null' if values is None else type(values).__name__}")
    if count not in (None, len(values)):
        raise ValueError(f"{expected}, got {len(values)}")
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{expected}, got a {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{expected}, got {value}")
    return values


def _pairs(ranks: list[float], best: Best, which: Which) -> Iterator[tuple[int, int, float]]:
    """Numbers of the better and the other image, and 1.0, or 0.5 for a tie."""
    order = sorted(range(len(ranks)), key=lambda i: ranks[i] if best == "lowest" else -ranks[i])
    if len(order) < 2:
        return
    chosen: Iterable[tuple[int, int]]
    match which:
        case "all":
            chosen = combinations(order, 2)
        case "adjacent":
            chosen = pairwise(order)
        case "best-worst":
            chosen = [(order[0], order[-1])]
    for better, worse in chosen:
        yield better, worse, 0.5 if ranks[better] == ranks[worse] else 1.0
