"""Files that prompts are read from, by their suffix."""

import csv
import glob
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.errors import UserError
from trainers.files import canonical_json, sha256_file, sha256_text

COLUMNS = ("prompt", "Prompt", "caption")
"""Where prompts stand in a table; the first that is there is taken."""


def find_files(place: str) -> list[Path]:
    """The files that ``place`` stands for, in the order of their names; none if there are none.

    Args:
        place: A file, or a pattern with ``*``; ``**`` is any depth.
    """
    if "*" not in place:
        return [path] if (path := Path(place)).is_file() else []
    # Path.glob takes no absolute patterns, hence glob.glob.
    found = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    return [path for path in map(Path, found) if path.is_file()]


def hash_files(paths: Sequence[Path]) -> str:
    """Hex sha256 of a file; of several, one over the hash of each in their order."""
    hashes = [sha256_file(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else sha256_text(canonical_json(hashes))


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Id and prompt of each line of a jsonl file.

    Raises:
        UserError: If a line has no id or prompt, or one of them occurs twice.
    """
    items: list[tuple[str, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            items.append((str(row["id"]), str(row["prompt"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}:{number}: expected {{"id": ..., "prompt": ...}}, got {line[:60]!r}'
            ) from error
    for what, values in (("id", [i for i, _ in items]), ("prompt", [p for _, p in items])):
        repeated = {v for v in values if values.count(v) > 1}
        if repeated:
            # Equal prompts would share their noise, and be counted as two observations.
            raise UserError(f"{path}: {what} {sorted(repeated)[0]!r} occurs more than once")
    return items


def read_rows(paths: Sequence[Path]) -> list[str]:
    """The prompts of tables, repeated ones included, one file after the other.

    Raises:
        UserError: If a file is of no known kind, damaged, or a row has no prompt.
    """
    return [prompt for path in paths for prompt in _checked(path)]


def _checked(path: Path) -> list[str]:
    read = READERS.get(path.suffix)
    if read is None:
        raise UserError(f"{path}: expected a file of prompts that ends in {', '.join(READERS)}")
    try:
        rows = read(path)
    except (pa.ArrowInvalid, csv.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a {path.suffix} file, got {error}") from error
    for number, prompt in enumerate(rows):
        if not isinstance(prompt, str):
            raise UserError(f"{path} row {number}: expected a prompt, got {prompt!r}")
    return rows


def _column(path: Path, names: Sequence[str]) -> str:
    for column in COLUMNS:
        if column in names:
            return column
    raise UserError(
        f"{path}: expected a column {' or '.join(COLUMNS)}, got {', '.join(names) or 'none'}"
    )


def _parquet(path: Path) -> list[Any]:
    column = _column(path, pq.read_schema(path).names)
    return list(pq.read_table(path, columns=[column])[column].to_pylist())


def _separated(path: Path) -> list[Any]:
    # Between tabs a quotation mark is one: a prompt of PartiPrompts begins with it.
    kind: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream, **(kind if path.suffix == ".tsv" else {"strict": True}))
        column = _column(path, rows.fieldnames or ())
        return [row[column] for row in rows]


def _json(path: Path) -> list[Any]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of prompts, got {type(rows).__name__}")
    return rows


READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".parquet": _parquet,
    ".csv": _separated,
    ".tsv": _separated,
    ".json": _json,
}
"""Kinds of tables; of parquet only the column of prompts is read."""
