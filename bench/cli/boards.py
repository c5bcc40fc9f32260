"""Commands on several result folders."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import JsonOption, NotesOption
from bench.cli.results import Format
from trainers.errors import UserError


def leaderboard(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            file_okay=False,
            help="Result folders, or folders that hold some; default: results.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare, byte for byte.")] = False,
    kind: Annotated[
        Format | None, typer.Option("--format", help="Print this instead of the terminal's view.")
    ] = None,
    published: Annotated[
        bool, typer.Option(help="Show what papers have published, apart and in grey.")
    ] = True,
    notes: NotesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Rank the arms of result folders, in groups of what can be compared.

    With one folder that holds results, its LEADERBOARD.md, leaderboard.csv and leaderboard.json are
    written.
    """
    from bench.report.boards import FILES, FORMATS, home, read_board, stale, write
    from bench.report.terminal import print_board

    if as_json and kind not in (None, "json"):
        raise UserError(f"--json and --format {kind} exclude each other: give one of them")
    places = folders or [Path("results")]
    found, folder = read_board(places, published), home(places)
    if check:
        if wrong := stale(found, folder):
            raise UserError(
                f"{folder}: {', '.join(wrong)} is not what its results give: run 'bench "
                f"leaderboard {folder}'"
            )
        typer.echo(f"{folder}: the leaderboard is what its results give")
        return 0
    if folder is not None:
        write(found, folder)
    if as_json or kind is not None:
        typer.echo(FORMATS[kind or "json"](found), nl=False)
    else:
        print_board(found.report, f"In {folder}: {', '.join(FILES)}" if folder else "", notes)
    return 0


def verify(
    folder: Annotated[
        Path, typer.Argument(file_okay=False, help="A result folder, or one that holds some.")
    ],
) -> int:
    """Say what is wrong with a result folder: hashes, manifest, and tables that its scores give.

    One line for each fault; who contributes a row runs this first.
    """
    from bench.report.verify import faults
    from bench.results.board import find_results

    places = find_results([folder])
    found = [fault for place in places.values() for fault in faults(place)]
    for fault in found:
        typer.echo(f"bench: {fault}", err=True)
    if not found:
        whole = "is whole" if len(places) == 1 else f"holds {len(places)} results, all whole"
        typer.echo(f"{folder} {whole}: hashes, manifest and tables are what they should be")
    return 1 if found else 0


def compare(
    first: Annotated[str, typer.Argument(help="A result folder, or FOLDER:ARM.")],
    second: Annotated[str, typer.Argument(help="Another one; its scores less the first's.")],
    as_json: JsonOption = False,
) -> int:
    """Say what two results or two arms differ in, and whether their scores do beyond noise."""
    from bench.report.compare import report
    from bench.report.json import plain
    from bench.report.terminal import print_board
    from bench.results.compare import compare as compared
    from bench.results.compare import open_side
    from bench.terminal import print_json

    found = compared(open_side(first), open_side(second))
    if as_json:
        print_json(plain(found))
    else:
        print_board(report(found), "", notes=True)
    return 0
