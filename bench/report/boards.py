"""What is rendered from a leaderboard, by format, and the files that lie beside its results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import board, csv, html, json, latex, markdown
from bench.report.cells import Report
from bench.report.published import Block, blocks
from bench.results.board import Group, find_results, leaderboard
from bench.results.files import PROTOCOL
from trainers.errors import UserError
from trainers.files import as_json, write_text
from trainers.input.paths import is_regular


@dataclass(frozen=True)
class Board:
    """Groups of results, and what papers have published."""

    groups: tuple[Group, ...]
    published: tuple[Block, ...]

    @property
    def report(self) -> Report:
        """All that is shown."""
        return board.report(self.groups, self.published)


FORMATS: dict[str, Callable[[Board], str]] = {
    "markdown": lambda found: markdown.render(found.report),
    "latex": lambda found: latex.render(found.report),
    "html": lambda found: html.render(found.report),
    "csv": lambda found: csv.render(board.figures(found.groups)),
    "json": lambda found: as_json(json.plain(found)),
}
"""Whole texts by format: three of what is shown, and two of every figure."""
FILES = {"LEADERBOARD.md": "markdown", "leaderboard.csv": "csv", "leaderboard.json": "json"}
"""Formats of the files that lie beside the result folders."""


def read_board(places: Sequence[Path], published: bool) -> Board:
    """The leaderboard of result folders, or of folders that they lie in.

    Raises:
        UserError: As :func:`bench.results.board.find_results` and ``leaderboard``.
    """
    groups = leaderboard(find_results(places))
    return Board(groups, blocks() if published else ())


def home(places: Sequence[Path]) -> Path | None:
    """Where the files of a leaderboard lie: the one folder that holds all of its results."""
    return places[0] if len(places) == 1 and not is_regular(places[0] / PROTOCOL) else None


def write(found: Board, folder: Path) -> None:
    """Write the files of a leaderboard."""
    for name, kind in FILES.items():
        write_text(folder / name, FORMATS[kind](found))


def stale(found: Board, folder: Path | None) -> list[str]:
    """Files that differ from what the results give, byte for byte.

    Raises:
        UserError: If there is no folder that they could lie in.
    """
    if folder is None:
        raise UserError(
            "--check compares the files beside result folders: give the one folder that these "
            "lie in, such as results"
        )
    return [
        name
        for name, kind in FILES.items()
        if not is_regular(folder / name)
        or (folder / name).read_bytes() != FORMATS[kind](found).encode()
    ]
