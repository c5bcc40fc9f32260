"""``bench store``: what ``bench ablate`` has kept."""

from pathlib import Path

import typer

from bench.cli.options import OutOption

app = typer.Typer(help="The store of 'bench ablate'.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep the name of a command, though there is only one."""


@app.command()
def verify(out: OutOption = Path("runs")) -> int:
    """Hash every file of the store, also those that have not changed by size and time."""
    from bench.stages.store import Store

    typer.echo(f"{out / 'store'}: {Store(out / 'store').verify()} artefacts are as recorded")
    return 0
