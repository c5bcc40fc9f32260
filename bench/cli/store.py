"""``bench store``: what ``bench ablate`` has kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import JsonOption, OutOption
from trainers.errors import UserError

if TYPE_CHECKING:
    from bench.experiment.space import Piece

app = typer.Typer(help="The store of 'bench ablate'.", no_args_is_help=True)
UNITS = ("B", "kB", "MB", "GB", "TB")


@app.command()
def du(out: OutOption = Path("runs"), as_json: JsonOption = False) -> int:
    """Say what takes space, by the results that refer to it, and what none refers to."""
    from bench.experiment.space import freed, pieces, removable, total
    from bench.terminal import Column, print_json, print_table

    found = pieces(out)
    names = sorted({name for piece in found for name in piece.owners})
    rows: list[tuple[str | None, int, int, int]] = []
    for name in [*names, None]:
        own = [p for p in found if (name in p.owners if name else not p.owners)]
        alone = removable(own, [name], 0) if name else own
        rows.append((name, len(own), total(own), freed(alone, found)))
    if as_json:
        keys = ("result", "pieces", "bytes", "alone")
        told = [dict(zip(keys, row, strict=True)) for row in rows]
        print_json({"bytes": total(found), "results": told, "pieces": _listed(found)})
        return 0
    columns = [Column("result"), *(Column(c, right=True) for c in ("pieces", "size", "alone"))]
    texts = [(name or "(none)", str(n), _size(a), _size(b)) for name, n, a, b in rows]
    print_table(
        columns, texts, f"{out / 'store'}: {_size(total(found))}; alone: what no other uses"
    )
    return 0


@app.command()
def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Results whose pieces go, too; needs --force.", show_default=False),
    ] = None,
    out: OutOption = Path("runs"),
    hours: Annotated[
        float, typer.Option(min=0, max=10**6, help="Leave alone what changed so lately.")
    ] = 168.0,
    force: Annotated[
        bool, typer.Option("--force", help="Delete what the named results refer to.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Delete what no result refers to, and what stages can make again for each other.

    Tables need none of the store; what is gone is made again when an experiment asks for it.
    """
    from bench.experiment.space import freed, pieces, removable, remove
    from bench.terminal import Column, print_json, print_table

    found = pieces(out)
    if unknown := {*(names or ())} - {name for piece in found for name in piece.owners}:
        raise UserError(f"{out} has no result {sorted(unknown)[0]!r} that refers to its store")
    gone = removable(found, names or (), hours)
    needed = [piece for piece in gone if piece.owners]
    if needed and not (force or dry_run):
        raise UserError(
            f"{len(needed)} pieces ({_size(freed(needed, found))}) would go that "
            f"{', '.join(names or ())} refers to, and be made again if it is run again: add "
            "--force, or --dry-run to see them"
        )
    if not dry_run:
        remove(gone, found)
    if as_json:
        print_json({"bytes": freed(gone, found), "dry_run": dry_run, "pieces": _listed(gone)})
        return 0
    if gone:
        columns = [Column("kind"), Column("size", right=True), Column("path")]
        print_table(columns, [(p.kind, _size(p.size), str(p.path)) for p in gone])
    verb = "would go" if dry_run else "are gone"
    typer.echo(f"{len(gone)} of {len(found)} pieces {verb}, {_size(freed(gone, found))}")
    return 0


def _listed(found: "Sequence[Piece]") -> list[dict[str, Any]]:
    return [
        {"kind": p.kind, "path": str(p.path), "bytes": p.size, "results": sorted(p.owners)}
        for p in found
    ]


def _size(count: int) -> str:
    """``1.2 MB``."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


@app.command()
def verify(out: OutOption = Path("runs")) -> int:
    """Hash every file of the store, also those that have not changed by size and time."""
    from bench.stages.store import Store

    store = Store(out / "store")
    artefacts, pieces = store.verify(), store.verify_pools()
    kept = f", and {pieces} files that stages keep for each other" if pieces else ""
    typer.echo(f"{store.root}: {artefacts} artefacts are as recorded{kept}")
    return 0
