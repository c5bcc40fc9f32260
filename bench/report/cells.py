"""Tables before they are drawn: what each cell holds, says and means, for every format."""

from dataclasses import dataclass
from typing import Literal

from bench.stats import VerdictWord

Value = float | int | str | bool | None
Mark = VerdictWord | Literal["missing", "primary", "warned", "published"]
"""A verdict; scores that are not there; the primary reward; a reward that a note warns of; what
others have published, which is set in grey."""


@dataclass(frozen=True)
class Cell:
    """One place of a table."""

    value: Value
    """What it holds: a number as it was computed, a name, or None where there is nothing."""
    text: str
    """What a reader sees, not escaped for any format."""
    marks: tuple[Mark, ...] = ()
    """What colours and classes follow from."""


@dataclass(frozen=True)
class Table:
    """Cells in rows, all of the width of the header."""

    title: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Report:
    """All that is shown of a result: what every renderer takes."""

    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """One sentence or more each: what a reader must know to trust the numbers."""


def name(text: str, *marks: Mark) -> Cell:
    """A cell that holds a text."""
    return Cell(text, text, marks)


def one_line(text: str) -> str:
    """A text without line breaks, for formats that end a row or a paragraph with them."""
    return " ".join(text.splitlines())
