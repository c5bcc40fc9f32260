"""Commands on result folders."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import JsonOption
from trainers.errors import UserError


def table(
    folder: Annotated[Path, typer.Argument(help="Folder that 'bench ablate' has written.")],
    check: Annotated[bool, typer.Option("--check", help="Only compare, byte for byte.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Render the tables of a result folder again, from its scores and plan alone."""
    from bench.report.terminal import print_results
    from bench.results.files import render, stale

    if not check:
        print_results(render(folder), as_json)
        return 0
    if wrong := stale(folder):
        raise UserError(
            f"{folder}: {', '.join(wrong)} is not what its scores give: run 'bench table {folder}'"
        )
    typer.echo(f"{folder}: every table is what its scores give")
    return 0
