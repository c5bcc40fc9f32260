"""The table of what was tried and what was right, and where it stands in a document."""

from collections.abc import Mapping
from pathlib import Path

from rows import Row

BEGIN, END = "<!-- storms: begin -->", "<!-- storms: end -->"
"""Between these lines of a document stands the table."""
HEAD = "| attack | tried | right |\n|---|---|---|\n"
Counts = Mapping[str, tuple[int, int]]
"""Tried and right by the name of a row."""


def markdown(rows: Mapping[str, Row], counts: Counts) -> str:
    """The table of the rows that were made."""
    return HEAD + "".join(f"{line}\n" for line in _lines(rows, counts).values())


def _lines(rows: Mapping[str, Row], counts: Counts) -> dict[str, str]:
    return {
        name: f"| {rows[name].area} (`{name}`) | {tried} | {right} |"
        for name, (tried, right) in counts.items()
    }


def refresh(path: Path, rows: Mapping[str, Row], counts: Counts) -> None:
    """Put rows into the table of a document; those that were not made stay as they are there."""
    head, _, rest = path.read_text().partition(BEGIN)
    old, found, tail = rest.partition(END)
    if not found:
        raise SystemExit(f"{path}: expected {BEGIN} and {END} around its table")
    kept = {name: line for name in rows for line in old.splitlines() if f"(`{name}`)" in line}
    new = kept | _lines(rows, counts)
    table = HEAD + "".join(f"{new[name]}\n" for name in rows if name in new)
    path.write_text(f"{head}{BEGIN}\n{table}{END}{tail}")
