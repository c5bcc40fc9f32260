"""Parquet files read as one table: some columns at once, the large ones row by row."""

import glob
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.hashes import remembered_sha256
from trainers.data.sources.splits import one_split
from trainers.errors import UserError, listed, refuse
from trainers.files import canonical_json, sha256_text
from trainers.input.parquet import Kind, Misfit, parquet_errors
from trainers.input.paths import refuse_leaving

GROUPS = 2
"""Row groups kept in memory: rows are mostly asked for in their order."""
AT_ONCE = 16
"""Files that are opened at a time: where they are far away, most of it is waiting."""
T = TypeVar("T")


class Shard(ABC):
    """A parquet file, wherever it lies. As text it is all that a user needs to find it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the file, without its folder."""

    @abstractmethod
    def open(self, footer: Any = None) -> pq.ParquetFile:
        """A reader; ``footer`` is the file's metadata, where it has been read already.

        Raises:
            pa.ArrowInvalid: If it is no parquet file.
        """

    @abstractmethod
    def sha256(self) -> str:
        """Hex sha256 of its bytes."""


@dataclass(frozen=True)
class LocalShard(Shard):
    """A file on the disk."""

    path: Path

    @property
    def name(self) -> str:
        """See the base class."""
        return self.path.name

    def open(self, footer: Any = None) -> pq.ParquetFile:
        """See the base class."""
        return pq.ParquetFile(self.path, metadata=footer)

    def sha256(self) -> str:
        """See the base class."""
        return remembered_sha256(self.path)

    def __str__(self) -> str:
        return str(self.path)


def find_shards(path: str, files: str, key: str = "files") -> list[Shard]:
    """The parquet files that ``path`` stands for, in order of their names.

    Args:
        path: A file, a folder, or a pattern with ``*``.
        files: Pattern of the files below a folder.
        key: The setting that chooses among the files of a folder: ``files``, or ``path``.

    Raises:
        UserError: If there is none, they are several splits, or one is a link that leads out.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(place.glob(files))
    elif "*" in path:
        found = [Path(name) for name in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207
    else:
        found = [place]
    # Path.glob takes no absolute patterns, hence glob.glob above.
    if not found or not all(shard.is_file() for shard in found):
        raise UserError(
            f"no preference pairs at {path}: give a parquet file, a folder or a pattern of them"
        )
    parts = takewhile(lambda part: "*" not in part, place.parts)
    root = place if place.is_dir() else Path(*parts)
    refuse_leaving(root, found)
    prefix, key = ("", key) if place.is_dir() and key == "files" else (f"{root}/", "path")
    one_split([shard.relative_to(root) for shard in found], path, prefix, key)
    return [LocalShard(shard) for shard in found]


class Shards:
    """The rows of several parquet files, one after the other."""

    def __init__(self, shards: Sequence[Shard], columns: Sequence[str]) -> None:
        """Read the footers.

        Raises:
            UserError: If a file is no parquet, or lacks one of ``columns``.
        """
        self.shards = list(shards)
        read = self._each(lambda shard: _footer(self.shards[shard]))
        self._footers, self._schemas = (
            [footer for footer, _ in read],
            [schema for _, schema in read],
        )
        self._require(columns)
        sizes = [
            [int(footer.row_group(group).num_rows) for group in range(footer.num_row_groups)]
            for footer in self._footers
        ]
        self._groups = [(s, g) for s, groups in enumerate(sizes) for g in range(len(groups))]
        self._ends = list(accumulate(size for groups in sizes for size in groups))
        self._starts = [0, *accumulate(sum(groups) for groups in sizes)]
        self.names = list(dict.fromkeys(n for schema in self._schemas for n in schema.names))
        """Columns that one file or more has."""
        self.floating = [
            name for name in self.names if all(map(partial(_is_floating, name), self._schemas))
        ]
        """Columns of floating-point numbers that all files have."""
        # Bound to this object, so that both go when it does.
        self._file = lru_cache(maxsize=4)(self._open)
        self._group = lru_cache(maxsize=GROUPS)(self._read)

    def __len__(self) -> int:
        """Number of rows."""
        return self._ends[-1] if self._ends else 0

    def table(self, columns: Mapping[str, Kind]) -> pa.Table:
        """Whole columns of all files, each file's brought to the kind that is meant.

        Raises:
            UserError: If a file lacks one, or holds another kind; all such columns are named.
        """
        self._require(list(columns))  # A reader leaves out what is not there, without a word.
        found = self._each(lambda shard: self._converted(shard, columns))
        refuse([line for _, lines in found for line in lines])
        return pa.concat_tables([table for table, _ in found])

    def _converted(self, shard: int, columns: Mapping[str, Kind]) -> tuple[pa.Table, list[str]]:
        """The columns of a file that are as they should be, and what is wrong with others."""
        with parquet_errors(self.shards[shard]), self._open(shard) as file:
            table = _whole(file.read(columns=list(columns)), self._footers[shard].num_rows)
        problems = []
        arrays = {}
        for name, kind in columns.items():
            try:
                arrays[name] = kind(table[name])
            except Misfit as error:
                row = error.row
                place = self.shards[shard] if row is None else self.place(self._starts[shard] + row)
                problems.append(
                    f"{place}: expected {error.expected} in column {name!r}, got {error.got}"
                )
        return pa.table(arrays), problems

    def require(self, columns: Sequence[str], kind: Callable[[pa.DataType], bool]) -> None:
        """Have columns that are read row by row be of a kind of encoded images.

        Raises:
            UserError: If a file lacks one, or holds another type.
        """
        self._require(columns)
        problems = []
        for shard, schema in zip(self.shards, self._schemas, strict=True):
            problems += [
                f"{shard}: expected the bytes of an encoded image in column {name!r}, got "
                f"{schema.field(name).type}"
                for name in columns
                if not kind(schema.field(name).type)
            ]
        refuse(problems)

    def values(self, row: int, columns: tuple[str, ...]) -> list[Any]:
        """The values of a row, as Python objects; its row group is read and kept for a while."""
        shard, group, offset = self._locate(row)
        table = self._group(shard, group, columns)
        return [table[column][offset].as_py() for column in columns]

    def place(self, row: int) -> str:
        """File, row group and row within it."""
        shard, group, offset = self._locate(row)
        return f"{self.shards[shard].name} row group {group} row {offset}"

    def sha256(self) -> str:
        """One hash over the bytes of every file, in their order; names do not enter."""
        return sha256_text(canonical_json([shard.sha256() for shard in self.shards]))

    def _locate(self, row: int) -> tuple[int, int, int]:
        """Shard, row group in it, and row in that."""
        number = bisect_right(self._ends, row)
        return *self._groups[number], row - (self._ends[number - 1] if number else 0)

    def _each(self, work: Callable[[int], T]) -> list[T]:
        """What ``work`` makes of the number of each shard, in their order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(work, range(len(self.shards))))

    def _require(self, columns: Sequence[str]) -> None:
        problems = []
        for shard, schema in zip(self.shards, self._schemas, strict=True):
            have = schema.names
            repeated = [column for column in columns if have.count(column) > 1]
            problems += [f"{shard}: expected the column {c!r} once, got it twice" for c in repeated]
            if lacking := [column for column in columns if column not in have]:
                problems.append(
                    f"{shard}: expected the columns {', '.join(columns)}, got {listed(have)}: "
                    f"add {', '.join(lacking)}"
                )
        refuse(problems)

    def _open(self, shard: int) -> pq.ParquetFile:
        return self.shards[shard].open(self._footers[shard])

    def _read(self, shard: int, group: int, columns: tuple[str, ...]) -> pa.Table:
        with parquet_errors(self.shards[shard]):
            table = self._file(shard).read_row_group(group, columns=list(columns))
            return _whole(table, self._footers[shard].row_group(group).num_rows)


def _is_floating(name: str, schema: pa.Schema) -> bool:
    once = schema.names.count(name) == 1
    return once and bool(pa.types.is_floating(schema.field(name).type))


def _footer(shard: Shard) -> tuple[Any, pa.Schema]:
    with parquet_errors(shard), shard.open() as file:
        return file.metadata, file.schema_arrow


def _whole(table: pa.Table, rows: int) -> pa.Table:
    """A table that was read, if it has as many rows as the footer says."""
    if len(table) != rows:
        raise pa.ArrowInvalid(f"{len(table)} of the {rows} rows that its footer says")
    return table


def as_bytes(value: Any) -> bytes | None:
    """An encoded image as a column holds it: bytes, or a struct with ``bytes`` in it."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None
