"""What every command prints with: tables, texts and JSON on standard output; quiet libraries."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PROSE = 24
"""Characters of a line below which prose is hard to read."""
LONGEST_WORD = 40
"""Characters of prose that are kept together: a path may be longer than a terminal is wide."""
EDGE = 3
"""Characters that a drawn column has beside its text."""


def plain_console(stderr: bool = False, width: int | None = None) -> Console:
    """A console that shows every text as it is: titles, prompts and paths are no markup."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


@dataclass(frozen=True)
class Column:
    """A column of a table that is printed."""

    name: str
    """Its header."""
    prose: bool = False
    """Whether its texts may be broken between words; names and numbers never are."""
    right: bool = False
    """Whether its texts end below each other."""
    rank: int = 0
    """Where room is scarce the columns of the highest rank are left out first, of these the last;
    the first column of a table never is."""


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    title: str = "",
    styles: Sequence[str | None] = (),
    more: str = "with --json",
) -> None:
    """Print a table: drawn on a terminal, one plain line per row anywhere else.

    A terminal is shown the columns that fit into its width (or ``COLUMNS``); what else there is is
    counted below. Plain lines hold every column, two spaces or more apart.

    Args:
        columns: At least one.
        rows: Texts, as many in each as there are columns.
        title: Printed above.
        styles: Of each row on a terminal, such as ``green``; none if it is empty.
        more: Where columns that were left out are found.
    """
    lines = [[" ".join(text.split()) for text in row] for row in rows]
    console = plain_console()
    if title:
        print_text(title, "italic")
    if console.is_terminal:
        _draw(console, columns, lines, styles, more)
    else:
        _write_lines(columns, lines)


def _write_lines(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> None:
    # A gap without a text would shift the columns of whoever splits at gaps.
    whole = [[text or "-" for text in line] for line in ([c.name for c in columns], *lines)]
    widths = [max(map(cell_len, texts)) for texts in zip(*whole, strict=True)]
    for line in whole:
        padded = (t + " " * (w - cell_len(t)) for t, w in zip(line, widths, strict=True))
        typer.echo("  ".join(padded).rstrip())


def _draw(
    console: Console,
    columns: Sequence[Column],
    lines: Sequence[Sequence[str]],
    styles: Sequence[str | None],
    more: str,
) -> None:
    texts = [[c.name, *(line[i] for line in lines)] for i, c in enumerate(columns)]
    wanted = [max(map(cell_len, each)) for each in texts]
    least = [
        _least(each, want) if c.prose else want
        for c, each, want in zip(columns, texts, wanted, strict=True)
    ]
    shown = _fitting(columns, least, console.width)
    spare = console.width - _width(least[i] for i in shown)
    table = Table()
    for i in shown:
        extra = max(0, min(wanted[i] - least[i], spare))
        spare -= extra
        table.add_column(
            Text(columns[i].name), width=least[i] + extra, no_wrap=not columns[i].prose,
            overflow="fold", justify="right" if columns[i].right else "left",
        )  # fmt: skip
    for n, line in enumerate(lines):
        table.add_row(*(Text(line[i]) for i in shown), style=styles[n] if styles else None)
    # A name wider than the terminal is broken by the terminal, so that it can still be copied.
    plain_console(width=max(console.width, console.width - spare)).print(table)
    if left := len(columns) - len(shown):
        typer.echo(f"{left} column{'s' if left > 1 else ''} more {more}")


def _least(texts: Sequence[str], wanted: int) -> int:
    """Width that prose needs."""
    word = max((cell_len(word) for text in texts for word in text.split()), default=0)
    return max(min(word, LONGEST_WORD), min(wanted, PROSE))


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Places of the columns that fit side by side."""
    shown = list(range(len(columns)))
    while len(shown) > 1 and _width(widths[i] for i in shown) > width:
        shown.remove(max(shown[1:], key=lambda i: (columns[i].rank, i)))
    return shown


def _width(widths: Iterable[int]) -> int:
    """Width of a drawn table."""
    return sum(width + EDGE for width in widths) + 1


def print_text(text: str, style: str = "") -> None:
    """Print a text: broken between words on a terminal, on one line anywhere else."""
    console = plain_console()
    console.print(Text(text, style), soft_wrap=not console.is_terminal)


def silence_libraries() -> None:
    """Switch off the progress bars of diffusers and transformers, and their advice."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def print_json(value: Any) -> None:
    """Print data as JSON."""
    typer.echo(json.dumps(value, indent=1))


def say(line: str) -> None:
    """Print a line at once, from whichever process."""
    print(line, flush=True)
