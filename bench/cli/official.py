"""``bench official``: the published packages of two rewards."""

from pathlib import Path
from typing import Annotated

import typer

from bench.terminal import say

app = typer.Typer(help="The published packages of two rewards.", no_args_is_help=True)


@app.command()
def build(
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder; default: below ~/.cache.")
    ] = None,
) -> int:
    """Make the environment in which rewards named -official run: some minutes, about 1.6 GB."""
    from bench.official.build import build, default_folder

    build(out or default_folder(), say)
    return 0
