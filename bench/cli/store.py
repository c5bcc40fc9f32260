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

    store = Store(out / "store")
    artefacts, pieces = store.verify(), store.verify_pools()
    kept = f", and {pieces} files that stages keep for each other" if pieces else ""
    typer.echo(f"{store.root}: {artefacts} artefacts are as recorded{kept}")
    return 0
