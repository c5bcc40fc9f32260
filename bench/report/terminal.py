"""Results on a terminal."""

import os

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report.tables import grids, json_text, notes
from bench.results.analysis import Results

COLOURS = {"helps": "green", "hurts": "red"}
PLAIN_WIDTH = 160
"""Columns where the output is no terminal: wide enough that no figure is cut."""


def print_results(results: Results, as_json: bool = False) -> None:
    """Print every table of an experiment, or all figures as JSON."""
    if as_json:
        typer.echo(json_text(results), nl=False)
        return
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PLAIN_WIDTH)
    console.print(f"\n[bold]{escape(results.plan.title)}[/bold]")
    for grid in grids(results):
        table = Table(title=escape(grid.title), title_justify="left", title_style="italic")
        for index, name in enumerate(grid.header):
            table.add_column(escape(name), justify="left" if index == 0 else "right")
        for row in grid.rows:
            table.add_row(*map(escape, row), style=COLOURS.get(row[-1]))
        console.print(table)
    for line in notes(results):
        console.print(f"- {line}", markup=False, highlight=False)
