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

COLUMNS = ("prompt", "Prompt", "caption", "text")
"""Where prompts stand in a table; the first that is there is taken."""
Row = dict[str, Any]


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


def has_ids(path: Path) -> bool:
    """Whether a file is jsonl whose lines have ids of their own, by its first one."""
    if path.suffix in READERS and path.suffix != ".jsonl":
        return False
    with path.open(encoding="utf-8") as stream:
        first = stream.readline()
    try:
        return path.suffix != ".jsonl" or "id" in json.loads(first)
    except (ValueError, TypeError):
        return True  # And :func:`read_lines` says what is wrong.


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
    return [prompt for path in paths for prompt in _prompts(path)]


def _prompts(path: Path) -> list[str]:
    found: list[str] = []
    for number, row in enumerate(read_table(path, COLUMNS)):
        prompt = row.get(column_of(path, row, COLUMNS))
        if not isinstance(prompt, str):
            raise UserError(f"{path} row {number}: expected a prompt, got {prompt!r}")
        found.append(prompt)
    return found


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a file of prompts, whatever it is read for.

    Args:
        path: A table by its suffix, one of ``READERS``.
        columns: What may be read of them; of parquet nothing else is.

    Raises:
        UserError: If there is no such file, it is of no known kind, or damaged.
    """
    read = READERS.get(path.suffix)
    if read is None:
        raise UserError(f"{path}: expected a file of prompts that ends in {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"no file of prompts {path}")
    try:
        return read(path, columns)
    except (pa.ArrowInvalid, csv.Error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a {path.suffix} file, got {error}") from error


def column_of(path: Path, row: Row, columns: Sequence[str]) -> str:
    """The first of some columns that a row has.

    Raises:
        UserError: If it has none.
    """
    for column in columns:
        if column in row:
            return column
    names = ", ".join(map(str, row)) or "none"
    raise UserError(f"{path}: expected a column {' or '.join(columns)}, got {names}")


def _parquet(path: Path, columns: Sequence[str]) -> list[Row]:
    names = pq.read_schema(path).names
    wanted = [column for column in columns if column in names]
    if not wanted:
        column_of(path, dict.fromkeys(names), columns)
    return list(pq.read_table(path, columns=wanted).to_pylist())


def _separated(path: Path, columns: Sequence[str]) -> list[Row]:
    # Between tabs a quotation mark is one: a prompt of PartiPrompts begins with it.
    kind: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream, **(kind if path.suffix == ".tsv" else {"strict": True}))
        column_of(path, dict.fromkeys(rows.fieldnames or ()), columns)
        return list(rows)


def _json(path: Path, columns: Sequence[str]) -> list[Row]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of prompts, got {type(rows).__name__}")
    return [row if isinstance(row, dict) else {COLUMNS[0]: row} for row in rows]


def _jsonl(path: Path, columns: Sequence[str]) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if wrong := next((row for row in rows if not isinstance(row, dict)), None):
        raise UserError(f"{path}: expected an object on each line, got {wrong!r}")
    return rows


def _text(path: Path, columns: Sequence[str]) -> list[Row]:
    return [{COLUMNS[0]: line} for line in path.read_text(encoding="utf-8").splitlines()]


READERS: dict[str, Callable[[Path, Sequence[str]], list[Row]]] = {
    ".parquet": _parquet,
    ".csv": _separated,
    ".tsv": _separated,
    ".json": _json,
    ".jsonl": _jsonl,
    ".txt": _text,
}
"""Kinds of tables by suffix."""
