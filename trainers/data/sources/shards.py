"""Parquet files read as one table: some columns at once, the large ones row by row."""

import glob
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.hashes import remembered_sha256
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text

GROUPS = 2
"""Row groups kept in memory: rows are mostly asked for in their order."""


def find_shards(path: str, files: str) -> list[Path]:
    """The parquet files that ``path`` stands for, in order of their names.

    Args:
        path: A file, a folder, or a pattern with ``*``.
        files: Pattern of the files below a folder.

    Raises:
        UserError: If there is none.
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
    return found


class Shards:
    """The rows of several parquet files, one after the other."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        """Read the footers.

        Raises:
            UserError: If a file is no parquet, or lacks one of ``columns``.
        """
        self.paths = list(paths)
        sizes = [_group_sizes(path, columns) for path in paths]
        self._groups = [(s, g) for s, groups in enumerate(sizes) for g in range(len(groups))]
        self._ends = list(accumulate(size for groups in sizes for size in groups))
        self.names = set(pq.read_schema(self.paths[0]).names)
        # Bound to this object, so that both go when it does.
        self._file = lru_cache(maxsize=4)(self._open)
        self._group = lru_cache(maxsize=GROUPS)(self._read)

    def __len__(self) -> int:
        """Number of rows."""
        return self._ends[-1] if self._ends else 0

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Whole columns of all files."""
        parts = [pq.read_table(path, columns=list(columns)) for path in self.paths]
        return pa.concat_tables(parts, promote_options="permissive")

    def values(self, row: int, columns: tuple[str, ...]) -> list[Any]:
        """The values of a row, as Python objects; its row group is read and kept for a while."""
        shard, group, offset = self._locate(row)
        table = self._group(shard, group, columns)
        return [table[column][offset].as_py() for column in columns]

    def place(self, row: int) -> str:
        """File, row group and row within it."""
        shard, group, offset = self._locate(row)
        return f"{self.paths[shard].name} row group {group} row {offset}"

    def sha256(self) -> str:
        """One hash over the bytes of every file, in their order; names do not enter."""
        return sha256_text(canonical_json([remembered_sha256(path) for path in self.paths]))

    def _locate(self, row: int) -> tuple[int, int, int]:
        """Shard, row group in it, and row in that."""
        number = bisect_right(self._ends, row)
        return *self._groups[number], row - (self._ends[number - 1] if number else 0)

    def _open(self, shard: int) -> pq.ParquetFile:
        return pq.ParquetFile(self.paths[shard])

    def _read(self, shard: int, group: int, columns: tuple[str, ...]) -> pa.Table:
        return self._file(shard).read_row_group(group, columns=list(columns))


def _group_sizes(path: Path, columns: Sequence[str]) -> list[int]:
    try:
        with pq.ParquetFile(path) as file:
            have, groups = file.schema_arrow.names, range(file.num_row_groups)
            sizes = [int(file.metadata.row_group(group).num_rows) for group in groups]
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: expected a parquet file, got {error}") from error
    if lacking := [c for c in columns if c not in have]:
        raise UserError(
            f"{path}: expected the columns {', '.join(columns)}, got {', '.join(have)}: "
            f"add {', '.join(lacking)}"
        )
    return sizes


def as_bytes(value: Any) -> bytes | None:
    """An encoded image as a column holds it: bytes, or a struct with ``bytes`` in it."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else None
