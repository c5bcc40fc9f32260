"""Files that prompts are read from, by their suffix."""

import csv
import glob
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.data.sources.shards import LocalShard, Shards
from trainers.errors import UserError, listed
from trainers.files import canonical_json, sha256_file, sha256_text
from trainers.input.parquet import as_texts
from trainers.input.paths import is_regular
from trainers.input.text import as_text, read_json, read_jsonl, read_text, split_lines

COLUMNS = ("prompt", "Prompt", "caption", "text")
"""Where prompts stand in a table; the first that is there is taken."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    place: str
    """What a message calls it: its file and line."""
    values: dict[str, Any]

    def text(self, columns: Sequence[str], what: str = "a prompt", empty: bool = False) -> str:
        """The text in the first of some columns that the row has.

        Args:
            columns: Their names.
            what: What a message calls it.
            empty: Whether it may say nothing.

        Raises:
            UserError: If it has none of them, or what stands there is no text, or an empty one.
        """
        column = next((c for c in columns if c in self.values), None)
        if column is None:
            raise _lacks(self.place, columns, self.values)
        found = as_text(self.values[column], self.place, what)
        if not empty and not found.strip():
            raise UserError(f"{self.place}: expected {what}, got an empty one: correct it")
        return found


def find_files(place: str) -> list[Path]:
    """The files that ``place`` stands for, in the order of their names; none if there are none.

    Args:
        place: A file, or a pattern with ``*``; ``**`` is any depth.
    """
    if "*" not in place:
        return [path] if is_regular(path := Path(place)) else []
    # Path.glob takes no absolute patterns, hence glob.glob.
    found = sorted(glob.glob(place, recursive=True))  # noqa: PTH207
    return [path for path in map(Path, found) if path.is_file()]


def hash_files(paths: Sequence[Path]) -> str:
    """Hex sha256 of a file; of several, one over the hash of each in their order."""
    hashes = [sha256_file(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else sha256_text(canonical_json(hashes))


def read_prompts(paths: Sequence[Path]) -> tuple[tuple[tuple[str, str], ...], int]:
    """Ids and prompts of files, and how many repeated prompts were left out.

    Raises:
        UserError: As :func:`read_table`, if a row has no prompt, or one with an id is repeated.
    """
    rows = [row for path in paths for row in read_table(path, COLUMNS, otherwise=".jsonl")]
    lines = READERS.get(paths[0].suffix.lower(), _jsonl) is _jsonl
    if len(paths) == 1 and lines and rows and "id" in rows[0].values:
        return _identified(rows), 0
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.text(COLUMNS), number)
    items = tuple((str(number), prompt) for prompt, number in first.items())
    return items, len(rows) - len(items)


def _identified(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """Ids and prompts of rows that all have them; none occurs twice."""
    seen: dict[tuple[str, str], str] = {}
    items = []
    for row in rows:
        if lacking := {"id", "prompt"} - row.values.keys():
            raise UserError(
                f'{row.place}: expected {{"id": ..., "prompt": ...}}, got one without '
                f"{', '.join(sorted(lacking))}"
            )
        number = row.values["id"]
        name = str(number) if type(number) is int else row.text(("id",), "an id")
        items.append((name, row.text(("prompt",))))
        for what, value in zip(("id", "prompt"), items[-1], strict=True):
            if (where := seen.setdefault((what, value), row.place)) != row.place:
                # Equal prompts would share their noise, and be counted as two observations.
                raise UserError(
                    f"{row.place}: {what} {value[:60]!r} occurs more than once, first at {where}"
                )
    return tuple(items)


def read_table(path: Path, columns: Sequence[str], otherwise: str = "") -> list[Row]:
    """The rows of a file of prompts, whatever it is read for.

    Args:
        path: A table by its suffix, one of ``READERS``.
        columns: What may be read of them; of parquet nothing else is.
        otherwise: The suffix that others are taken for.

    Raises:
        UserError: If there is no such file, it is of no known kind, or damaged.
    """
    suffix = path.suffix.lower()
    read = READERS.get(suffix) or READERS.get(otherwise)
    if read is None:
        raise UserError(f"{path}: expected a file of prompts that ends in {', '.join(READERS)}")
    if not path.exists():
        raise UserError(f"no file of prompts {path}")
    return list(read(path, columns))


def _lacks(place: object, columns: Sequence[str], names: Iterable[object]) -> UserError:
    return UserError(f"{place}: expected a column {' or '.join(columns)}, got {listed(names)}")


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    shards = Shards([LocalShard(path)], ())
    wanted = [column for column in columns if column in shards.names]
    if not wanted:
        raise _lacks(path, columns, shards.names)
    rows = shards.table(dict.fromkeys(wanted, as_texts)).to_pylist()
    return (Row(shards.place(number), row) for number, row in enumerate(rows))


def _separated(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    # Between tabs a quotation mark is one: a prompt of PartiPrompts begins with it.
    tabs = path.suffix.lower() == ".tsv"
    kind: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    lines = csv.reader(
        io.StringIO(read_text(path), newline=""), **(kind if tabs else {"strict": True})
    )
    try:
        header = next(lines, [])
        if not set(header) & set(columns):
            raise _lacks(path, columns, header)
        if twice := {name for name in columns if header.count(name) > 1}:
            raise UserError(
                f"{path}: expected columns of different names, got {' and '.join(sorted(twice))} "
                "more than once: remove or rename one"
            )
        for fields in filter(None, lines):
            place = f"{path}:{lines.line_num}"
            if len(fields) != len(header):
                quote = "take the tabs out" if tabs else "quote a text with commas in it"
                raise UserError(
                    f"{place}: expected {len(header)} fields as in the first line, got "
                    f"{len(fields)}: {'add what lacks' if len(fields) < len(header) else quote}"
                )
            yield Row(place, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise UserError(
            f"{path}: expected a {path.suffix} file, got {error} on line {lines.line_num}"
        ) from error


def _json(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of prompts, got {type(rows).__name__}")
    for number, row in enumerate(rows):
        yield Row(f"{path} row {number}", row if isinstance(row, dict) else {COLUMNS[0]: row})


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for place, row in read_jsonl(path):
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected an object, got a {type(row).__name__}")
        yield Row(place, row)


def _text(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(split_lines(read_text(path)), 1):
        yield Row(f"{path}:{number}", {COLUMNS[0]: line})


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".csv": _separated,
    ".tsv": _separated,
    ".json": _json,
    ".jsonl": _jsonl,
    ".txt": _text,
}
"""Kinds of tables by suffix."""
