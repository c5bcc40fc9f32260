"""Results on a terminal: the tables, what was found, and where the rest is."""

from pathlib import Path

import typer

from bench.report.cells import Cell, Mark, Report, Table, one_line
from bench.report.folder import FILES, report
from bench.report.summary import summary
from bench.results.analysis import Results
from bench.terminal import Column, print_table, print_text

COLOURS: dict[Mark, str] = {"helps": "green", "hurts": "red", "published": "dim"}
KEY = "verdict"
"""Name of the column that is shown however narrow a terminal is, beside those of the primary."""


def print_results(results: Results, folder: Path, notes: bool = False) -> None:
    """Print results that lie in a folder; ``notes`` adds what stands under the tables there."""
    shown = report(results)
    print_text(one_line(shown.title), "bold")
    print_text(f"Read as: {one_line(results.protocol.label)}.")
    print_tables(shown)
    for sentence in summary(results):
        print_text(one_line(sentence))
    if notes:
        typer.echo()
        for note in shown.notes:
            print_text(f"- {one_line(note)}")
    hint = "" if notes else f". Notes: bench table {folder} --notes"
    typer.echo(f"\nIn {folder}: {', '.join(FILES)}{hint}")


def print_board(shown: Report, place: str, notes: bool = False) -> None:
    """Print a leaderboard; ``place`` says where its files lie, if they do."""
    print_text(one_line(shown.title), "bold")
    print_tables(shown, "with --format markdown")
    for note in shown.notes if notes else ():
        print_text(f"- {one_line(note)}")
    typer.echo(". ".join(filter(None, (place, "" if notes else "What figures mean: --notes"))))


def print_tables(shown: Report, more: str = f"in {next(iter(FILES))}") -> None:
    """Print the tables of a report; ``more`` says where columns are that do not fit."""
    for table in shown.tables:
        typer.echo()
        _print(table, more)
    typer.echo()


def _print(table: Table, more: str) -> None:
    columns = [_column(cell, n > 0) for n, cell in enumerate(table.columns)]
    styles = [_style(row) for row in table.rows]
    rows = [[cell.text for cell in row] for row in table.rows]
    print_table(columns, rows, one_line(table.title), styles, more)


def _column(cell: Cell, right: bool) -> Column:
    key = "primary" in cell.marks or cell.text == KEY
    return Column(one_line(cell.text), right=right, rank=int(not key))


def _style(row: tuple[Cell, ...]) -> str | None:
    marks = (mark for cell in row for mark in cell.marks)
    return next(filter(None, map(COLOURS.get, marks)), None)
