"""Pairs in the schema of Pick-a-Pic v2 (Kirstain et al. 2023, arXiv 2305.01569), as parquet.

Columns used: ``caption``, ``jpg_0``, ``jpg_1`` (encoded images) and ``label_0`` (1 if image 0 is
preferred, 0 if image 1 is, 0.5 for a tie); where they are there, also ``has_label`` (false: nobody
judged) and ``label_1`` (which must be ``1 - label_0``). All others may be there or not.

The files are mapped, not loaded: opening reads the small columns, and an image is read, with the
row group it is in, when it is asked for. Nothing is streamed: that would only pay where the files
cannot be kept, and would give up the order of the rows, which the stream of examples builds on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from trainers.data.sources.base import (
    CONTRADICTED,
    MISSING,
    BadPair,
    Labels,
    Rows,
    Source,
)
from trainers.data.sources.shards import Shard, Shards, as_bytes, find_shards
from trainers.errors import UserError

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0")
HUB = re.compile(r"([\w.-]+/[\w.-]+)@([\w.-]+)")


class Parquet(Source):
    """Parquet files: one, a folder, a pattern, or a data set of the Hub."""

    name: ClassVar[str] = "parquet"
    path: str
    """A file, a folder, a pattern with ``*``, or ``owner/name@revision`` on the Hub."""
    files: str = "**/*.parquet"
    """Pattern of the files in a folder or a data set of the Hub, e.g. ``data/train-*.parquet``."""
    download: bool = False
    """Allow downloads; otherwise only what lies in the Hub's cache is used."""

    def open(self) -> Rows:
        """See the base class."""
        return _open(find_shards(_local(self), self.files))


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
    extra = [column for column in ("label_1", "has_label") if column in shards.names]
    table = shards.table(["caption", "label_0", *extra])
    prompts = table["caption"].cast(pa.large_string())
    labels = _floats(table["label_0"])
    if "label_1" in extra:
        other = _floats(table["label_1"])
        with np.errstate(invalid="ignore"):
            # One of two labels that disagree is wrong, and nobody knows which.
            both = np.isfinite(labels) & np.isfinite(other)
            labels[both & (labels + other != 1)] = CONTRADICTED
    if "has_label" in extra:
        judged = np.asarray(table["has_label"].fill_null(False).to_numpy(zero_copy_only=False))
        labels[~judged.astype(bool)] = np.nan
    rows = _ParquetRows(prompts, labels, shards)
    if prompts.null_count:
        row = int(np.argmax(prompts.is_null().to_numpy()))
        raise UserError(f"{rows.place(row)}: expected a caption, got null: remove the row")
    return rows


def _floats(column: pa.ChunkedArray) -> Labels:
    """A column as float64."""
    values = np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    values[np.isnan(values)] = MISSING
    return values


def _local(source: Parquet) -> str:
    """The path, or the folder that a data set of the Hub was downloaded to."""
    found = HUB.fullmatch(source.path)
    if Path(source.path).exists() or found is None:
        return source.path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, revision = found.groups()
    try:
        return snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[source.files, source.files.removeprefix("**/")],
            local_files_only=not source.download,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{source.path}: not in the Hub's cache, or the Hub did not answer: set 'download: "
            f"true' to fetch it, give a mirror as owner/name@revision, or a local folder ({error})"
        ) from error
