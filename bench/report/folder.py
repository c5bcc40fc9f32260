"""What is rendered from a result folder, by format, and the files that lie in it."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from bench.report import csv, html, json, latex, markdown
from bench.report.cells import Report
from bench.report.notes import notes
from bench.report.tables import figures, tables
from bench.results.analysis import Results
from bench.results.files import (
    MANIFEST,
    PROTOCOL,
    UNSEALED,
    read_manifest,
    read_results,
    schema,
    seal,
)
from bench.results.pictures import read_pictures
from bench.results.steps import read_scales, read_steps
from trainers.errors import UserError
from trainers.files import write_text
from trainers.input.paths import is_regular


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

    A folder of the schema before is brought to today's, if its tables vouch for its scores.

    Raises:
        UserError: As :func:`bench.results.files.read_results`.
    """
    if schema(folder / PROTOCOL) == UNSEALED:
        if wrong := _differing(folder, read_results(folder, (UNSEALED,))):
            raise UserError(
                f"{folder} has schema {UNSEALED}, which knows no sha256 of its scores, and its "
                f"{', '.join(wrong)} is not what they give: run the 'bench ablate' again that has "
                "written it, or restore the files"
            )
        seal(folder)
    results = read_results(folder)
    for name, text in rendered(results).items():
        write_text(folder / name, text)
    return results


def stale(folder: Path) -> list[str]:
    """Rendered files that differ from what scores and protocol give, byte for byte.

    Raises:
        UserError: As :func:`bench.results.files.read_results`; or if the manifest, data beside
            the scores, or a picture are damaged.
    """
    if (folder / MANIFEST).exists():
        read_manifest(folder)
    read_steps(folder)
    read_scales(folder)
    deque(read_pictures(folder), maxlen=0)
    return _differing(folder, read_results(folder))


def _differing(folder: Path, results: Results) -> list[str]:
    return [
        name
        for name, text in rendered(results).items()
        if not is_regular(folder / name) or (folder / name).read_bytes() != text.encode()
    ]
