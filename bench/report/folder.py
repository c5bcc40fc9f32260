"""What is rendered from a result folder, by format, and the files that lie in it."""

from collections.abc import Callable
from pathlib import Path

from bench.report import csv, html, json, latex, markdown
from bench.report.cells import Report
from bench.report.notes import notes
from bench.report.tables import figures, tables
from bench.results.analysis import Results
from bench.results.files import read_results
from trainers.files import write_text


def report(results: Results) -> Report:
    """All that is shown of results."""
    return Report(results.protocol.title, tables(results), notes(results))


FORMATS: dict[str, Callable[[Results], str]] = {
    "markdown": lambda results: markdown.render(report(results)),
    "latex": lambda results: latex.render(report(results)),
    "html": lambda results: html.render(report(results)),
    "csv": lambda results: csv.render(figures(results)),
    "json": json.render,
}
"""Whole texts by format: three of what is shown, and two of every figure."""
FILES = {"table.md": "markdown", "table.csv": "csv", "table.json": "json"}
"""Formats of the files that lie beside the scores."""


def rendered(results: Results) -> dict[str, str]:
    """What these files hold, by name."""
    return {name: FORMATS[kind](results) for name, kind in FILES.items()}


def render(folder: Path) -> Results:
    """Write the tables of a result folder from its scores and protocol.

    Raises:
        UserError: As :func:`bench.results.files.read_results`.
    """
    results = read_results(folder)
    for name, text in rendered(results).items():
        write_text(folder / name, text)
    return results


def stale(folder: Path) -> list[str]:
    """Rendered files that differ from what scores and protocol give, byte for byte.

    Raises:
        UserError: As :func:`bench.results.files.read_results`.
    """
    return [
        name
        for name, text in rendered(read_results(folder)).items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode()
    ]
