"""Preference pairs from parquet files in the schema of Pick-a-Pic.

Columns used: ``caption``, ``jpg_0``, ``jpg_1`` (image bytes) and ``label_0`` (1 if image 0 is
preferred, 0 if image 1 is, 0.5 for a tie).
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from trainers.errors import UserError
from trainers.files import sha256_file

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0")


@dataclass(frozen=True)
class Pair:
    """A prompt with the encoded bytes of the preferred and the other image."""

    prompt: str
    winner: bytes
    loser: bytes


@dataclass(frozen=True)
class PairSet:
    """The pairs of a file, ties dropped, in the order of the file."""

    pairs: tuple[Pair, ...]
    ties: int
    sha256: str


def read_pairs(path: Path) -> PairSet:
    """Read a parquet file.

    Raises:
        UserError: If the file or a column is missing, a label is not one of 0, 0.5 and 1, or no
            pair is left.
    """
    if not path.is_file():
        raise UserError(f"no preference pairs at {path}: give the path of a parquet file")
    have = pq.read_schema(path).names
    if lacking := [c for c in COLUMNS if c not in have]:
        raise UserError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(have)}: "
            f"add {', '.join(lacking)}"
        )
    rows = pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    pairs: list[Pair] = []
    for number, row in enumerate(rows):
        match row["label_0"]:
            case 1 | 1.0:
                pairs.append(Pair(row["caption"], row["jpg_0"], row["jpg_1"]))
            case 0 | 0.0:
                pairs.append(Pair(row["caption"], row["jpg_1"], row["jpg_0"]))
            case 0.5:
                pass
            case other:
                raise UserError(f"{path}: row {number}: label_0 must be 0, 0.5 or 1, got {other!r}")
    if not pairs:
        raise UserError(f"{path}: all {len(rows)} rows are ties: nothing to learn from")
    return PairSet(tuple(pairs), len(rows) - len(pairs), sha256_file(path))
