"""Rankings of several images for a prompt, turned into pairs.

The fields are by default those of the test split of HPD v2 (Wu et al. 2023, arXiv 2306.09341;
``prompt``, ``image_path`` and ``rank``, where 1 is the best). Its train split has ``file_path`` and
``human_preference``, where 1 is the preferred image: ``images: file_path``, ``ranks:
human_preference``, ``best: highest``.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainers.data.hashes import remembered_sha256
from trainers.data.sources.base import BadPair, Rows, Source, file_hashes, read_inside
from trainers.data.sources.shards import Shards, as_bytes, find_shards
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text

Which = Literal["all", "best-worst", "adjacent"]


class Rankings(Source):
    """A json or jsonl file of rankings with paths of images, or parquet with their bytes."""

    name: ClassVar[str] = "rankings"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    path: str
    """A json (list) or jsonl file, or as for ``parquet``, but not on the Hub."""
    pairs: Which = "all"
    """Every two images of a ranking; its best and worst; or neighbours in it."""
    best: Literal["lowest", "highest"] = "lowest"
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

    def images(self, row: int) -> tuple[bytes, bytes]:
        """See the base class."""
        ranking, first, second = self.of[row].tolist()
        (images,) = self.lists.values(ranking, (self.source.images,))
        if max(first, second) >= len(images):
            raise BadPair(f"{len(images)} images for more ranks")
        return self._bytes(images[first]), self._bytes(images[second])

    def _bytes(self, image: Any) -> bytes:
        if isinstance(self.lists, _Paths):
            return read_inside(self.lists.folder, str(image))
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
    rankings: list[dict[str, Any]]
    images: str

    @property
    def folder(self) -> Path:
        return self.file.parent

    def values(self, row: int, columns: tuple[str, ...]) -> list[Any]:
        return [self.rankings[row][column] for column in columns]

    def place(self, row: int) -> str:
        return f"{self.file.name} ranking {row}"

    def sha256(self) -> str:
        names = sorted({str(name) for ranking in self.rankings for name in ranking[self.images]})
        return sha256_text(
            canonical_json([remembered_sha256(self.file), file_hashes(self.folder, names)])
        )


def read_json(path: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a json list or of jsonl lines.

    Raises:
        UserError: If the file is missing or is no json, or an object lacks a field.
    """
    if not path.is_file():
        raise UserError(f"no preference pairs at {path}: give the path of a json or jsonl file")
    text = path.read_text()
    try:
        lines = [line for line in text.splitlines() if line.strip()]
        rows = json.loads(text) if path.suffix == ".json" else [json.loads(li) for li in lines]
    except ValueError as error:
        raise UserError(f"{path} is no {path.suffix[1:]}: {error}") from error
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not set(fields) <= row.keys():
            raise UserError(
                f"{path}: item {number}: expected an object with {', '.join(fields)}, got {row!r}"
            )
    return list(rows)


def _from_json(source: Rankings) -> Rows:
    file, fields = Path(source.path), (source.prompt, source.images, source.ranks)
    rankings = read_json(file, fields)
    prompts, images, ranks = ([r[field] for r in rankings] for field in fields)
    lists = _Paths(file, rankings, source.images)
    return _ranked(source, lists, [str(p) for p in prompts], [len(i) for i in images], ranks)


def _from_parquet(source: Rankings) -> Rows:
    columns = (source.prompt, source.images, source.ranks)
    shards = Shards(find_shards(source.path, "**/*.parquet"), columns)
    table = shards.table([source.prompt, source.ranks])
    ranks = table[source.ranks].to_pylist()
    prompts = table[source.prompt].to_pylist()
    return _ranked(source, shards, prompts, [len(r) for r in ranks], ranks)


def _ranked(
    source: Rankings,
    lists: "_Paths | Shards",
    prompts: list[str],
    counts: list[int],
    ranks: list[list[float]],
) -> Rows:
    texts: list[str] = []
    labels: list[float] = []
    of: list[tuple[int, int, int]] = []
    for number, (prompt, count, values) in enumerate(zip(prompts, counts, ranks, strict=True)):
        if len(values) != count or any(isinstance(v, str) or v is None for v in values):
            raise UserError(
                f"{lists.place(number)}: expected one rank for each of {count} images, got "
                f"{values!r}"
            )
        sign = 1.0 if source.best == "lowest" else -1.0
        for first, second, label in _pairs([sign * v for v in values], source.pairs):
            texts.append(prompt)
            labels.append(label)
            of.append((number, first, second))
    where = np.array(of, dtype=np.int64).reshape(-1, 3)
    prompts_of = pa.chunked_array([pa.array(texts, pa.large_string())])
    return _RankedRows(prompts_of, np.array(labels, dtype=np.float64), source, lists, where)


def _pairs(ranks: list[float], which: Which) -> Iterator[tuple[int, int, float]]:
    """Numbers of the better and the other image, and 1.0, or 0.5 for a tie; lowest is best."""
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])
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
