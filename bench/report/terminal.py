"""Results on a terminal."""

import os

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from bench.report.cells import Cell, Mark, Table, one_line
from bench.report.folder import FORMATS, report
from bench.results.analysis import Results

COLOURS: dict[Mark, str] = {"helps": "green", "hurts": "red"}
PLAIN_WIDTH = 160
"""Columns where the output is no terminal: wide enough that no figure is cut."""


def print_results(results: Results, kind: str | None = None) -> None:
    """Print results in a format of :data:`bench.report.folder.FORMATS`, or None for a view."""
    if kind is not None:
        typer.echo(FORMATS[kind](results), nl=False)
        return
    shown = report(results)
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PLAIN_WIDTH)
    console.print(f"\n[bold]{escape(one_line(shown.title))}[/bold]")
    for table in shown.tables:
        console.print(_grid(table))
    for note in shown.notes:
        console.print(f"- {one_line(note)}", markup=False, highlight=False)


def _grid(table: Table) -> Grid:
    grid = Grid(title=escape(one_line(table.title)), title_justify="left", title_style="italic")
    for index, column in enumerate(table.columns):
        grid.add_column(_text(column), justify="left" if index == 0 else "right")
    for row in table.rows:
        marks = (mark for cell in row for mark in cell.marks)
        grid.add_row(*map(_text, row), style=next(filter(None, map(COLOURS.get, marks)), None))
    return grid


def _text(cell: Cell) -> str:
    return escape(one_line(cell.text))
