"""Pairs in the schema of Pick-a-Pic v2 (Kirstain et al. 2023, arXiv 2305.01569), as parquet.

Columns used: ``caption``, ``jpg_0``, ``jpg_1`` (encoded images) and ``label_0`` (1 if image 0 is
preferred, 0 if image 1 is, 0.5 for a tie); where they are there, also ``has_label`` (false: nobody
judged) and ``label_1`` (which must be ``1 - label_0``). Other columns of floating-point numbers
that all files have are further numbers of a pair (``Rows.columns``), such as scores. All else may
be there or not.

The files are not loaded: opening reads the small columns, and an image is read, with the row group
it is in, when it is asked for. That holds for files on the disk and for streamed ones alike, whose
row groups are fetched as ranges of bytes: order, images and identity of the rows are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from trainers.data.sources.base import (
    CONTRADICTED,
    MISSING,
    BadPair,
    Labels,
    Rows,
    Source,
)
from trainers.data.sources.hub import HubSet, download, stream
from trainers.data.sources.shards import Shard, Shards, as_bytes, find_shards
from trainers.input.parquet import as_flags, as_numbers, as_texts, holds_images

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0")


class Parquet(Source):
    """Parquet files: one, a folder, a pattern, or a data set of the Hub."""

    name: ClassVar[str] = "parquet"
    path: str
    """A file, a folder, a pattern with ``*``, or ``owner/name@revision`` on the Hub."""
    files: str = "**/*.parquet"
    """Pattern of the files in a folder or a data set of the Hub, e.g. ``data/train-*.parquet``."""
    download: bool = False
    """Allow downloads; otherwise only what lies in the Hub's cache is used."""
    streaming: bool = False
    """Read a data set of the Hub over the network, a row group at a time, and keep no file of it.
    Asks the Hub whenever the source is opened; encodings must be kept."""

    @model_validator(mode="after")
    def _one_way(self) -> "Parquet":
        if self.streaming and self.download:
            raise ValueError("streaming keeps no file and download keeps all: set one of them")
        if self.streaming and HubSet.parse(self.path) is None:
            raise ValueError(
                f"streaming is for a data set of the Hub, owner/name@revision, got {self.path!r}: "
                "leave streaming out for files on the disk"
            )
        return self

    @property
    def sequential(self) -> bool:
        """See the base class."""
        return self.streaming

    def open(self) -> Rows:
        """See the base class."""
        return _open(self._shards())

    def _shards(self) -> list[Shard]:
        on_hub = HubSet.parse(self.path)
        if self.streaming and on_hub:
            return stream(on_hub, self.files)
        if on_hub is None or Path(self.path).exists():
            return find_shards(self.path, self.files)
        return find_shards(download(on_hub, self.files, allowed=self.download), self.files)


@dataclass(frozen=True, eq=False)
class _ParquetRows(Rows):
    shards: Shards

    def images(self, row: int) -> tuple[bytes, bytes]:
        """See the base class."""
        first, second = map(as_bytes, self.shards.values(row, ("jpg_0", "jpg_1")))
        if first is None or second is None:
            raise BadPair(f"jpg_{0 if first is None else 1}: no bytes")
        return first, second

    def place(self, row: int) -> str:
        """See the base class."""
        return self.shards.place(row)

    def sha256(self) -> str:
        """See the base class."""
        return self.shards.sha256()


def _open(found: Sequence[Shard]) -> Rows:
    shards = Shards(found, COLUMNS)
    shards.require(("jpg_0", "jpg_1"), holds_images)
    kinds = {"caption": as_texts, "label_0": as_numbers, "label_1": as_numbers,
             "has_label": as_flags}  # fmt: skip
    # What some of the files have all must: what a file without it means is not to be guessed.
    further = [name for name in shards.floating if name not in kinds]
    table = shards.table(
        {c: k for c, k in kinds.items() if c in shards.names} | dict.fromkeys(further, as_numbers)
    )
    labels = _floats(table["label_0"])
    if "label_1" in table.column_names:
        other = _floats(table["label_1"])
        with np.errstate(invalid="ignore"):
            # One of two labels that disagree is wrong, and nobody knows which.
            both = np.isfinite(labels) & np.isfinite(other)
            labels[both & (labels + other != 1)] = CONTRADICTED
    if "has_label" in table.column_names:
        judged = np.asarray(table["has_label"].fill_null(False).to_numpy(zero_copy_only=False))
        labels[~judged.astype(bool)] = np.nan
    numbers = {name: np.array(table[name], dtype=np.float64) for name in further}
    return _ParquetRows(table["caption"], labels, shards, columns=numbers)


def _floats(column: pa.ChunkedArray) -> Labels:
    """Numbers, and ``MISSING`` where there are none."""
    values = np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    values[np.isnan(values)] = MISSING
    return values
