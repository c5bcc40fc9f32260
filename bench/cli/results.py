"""Commands on result folders."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.options import JsonOption, NotesOption
from trainers.errors import UserError

Format = Literal["markdown", "latex", "html", "csv", "json"]


def table(
    folder: Annotated[Path, typer.Argument(help="Folder that 'bench ablate' has written.")],
    check: Annotated[bool, typer.Option("--check", help="Only compare, byte for byte.")] = False,
    kind: Annotated[
        Format | None, typer.Option("--format", help="Print this instead of the terminal's view.")
    ] = None,
    notes: NotesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Render the tables of a result folder again, from its scores and protocol alone."""
    from bench.report.folder import FORMATS, render, stale
    from bench.report.terminal import print_results

    if as_json and kind not in (None, "json"):
        raise UserError(f"--json and --format {kind} exclude each other: give one of them")
    if check:
        if wrong := stale(folder):
            raise UserError(
                f"{folder}: {', '.join(wrong)} is not what its scores give: run 'bench table "
                f"{folder}'"
            )
        typer.echo(f"{folder}: every table is what its scores give")
        return 0
    results = render(folder)
    if as_json or kind is not None:
        typer.echo(FORMATS[kind or "json"](results), nl=False)
    else:
        print_results(results, folder, notes)
    return 0
