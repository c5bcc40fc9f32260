"""Commands on result folders."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.options import JsonOption, NotesOption
from trainers.errors import UserError

Format = Literal["markdown", "latex", "html", "csv", "json"]


def table(
    folder: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder that 'bench ablate' has written.")
    ],
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


def figures(
    folders: Annotated[
        list[Path], typer.Argument(file_okay=False, help="Folders of 'bench ablate'.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where to; default: 'figures' in each folder."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare, byte for byte.")] = False,
) -> int:
    """Draw what results hold, as SVG and PNG; several folders with --out also as one map."""
    from bench.report.figures.folder import FIGURES_FOLDER, render, stale, write
    from bench.report.figures.source import read_source

    sources = [read_source(folder) for folder in folders]
    places = [folder / FIGURES_FOLDER for folder in folders]
    if out is not None:
        places = [out / source.name for source in sources] if len(folders) > 1 else [out]
        if len({*places}) < len(places):
            raise UserError("two folders have one name: draw them with an --out each")
    work = [([source], place) for source, place in zip(sources, places, strict=True)]
    if out is not None and len(folders) > 1:
        work.append((sources, out))
    for group, place in work:
        gallery = render(group)
        if not check:
            write(place, gallery)
        elif wrong := stale(place, gallery):
            raise UserError(
                f"{place}: {', '.join(wrong)} is not what the results give: run 'bench figures "
                f"{' '.join(map(str, folders))}'"
            )
        names = ", ".join(figure.name for figure in gallery.figures) or "no figure"
        typer.echo(f"{place}: {names}{' as the results give them' if check else ''}")
        for name, why in gallery.skipped.items():
            typer.echo(f"not drawn: {name}: {why}")
    return 0


def images(
    folder: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder that 'bench ablate' has written.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the images.")],
    store: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where they are kept; default: beside the folder."),
    ] = None,
) -> int:
    """Copy the images of a result under names that say prompt, arm, seed and number."""
    from bench.experiment.copies import copy_images
    from bench.stages.store import Store

    count = copy_images(folder, Store(store or folder.resolve().parent / "store"), out)
    typer.echo(f"{out}: {count} images")
    return 0


def power(
    what: Annotated[str, typer.Argument(help="A result folder, or a spec that was run.")],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Where the results of a spec lie.")
    ] = Path("runs"),
    target: Annotated[float, typer.Option(min=0.01, max=0.99, help="Probability to reach.")] = 0.8,
    as_json: JsonOption = False,
) -> int:
    """Say how many training seeds and prompts the declared bound needs.

    From the variances of a result: between seeds, between prompts, and of what is left.
    """
    from dataclasses import asdict

    from bench.results.analysis import differences
    from bench.results.files import read_scores
    from bench.results.power import needs
    from bench.spec.model import load_spec
    from bench.terminal import Column, print_json, print_table

    folder = Path(what) if Path(what).is_dir() else out / load_spec(what).name
    scores, protocol = read_scores(folder)
    try:
        found = needs(differences(scores, protocol), protocol, target)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error
    if not found:
        raise UserError(
            f"{folder}: expected two training seeds or more and a declared bound of equivalence: "
            "without them there is nothing to compute power from"
        )
    if as_json:
        print_json([asdict(need) for need in found])
        return 0
    told = {"equivalence": "to show that it is less than", "difference": "to find"}
    rows = [
        (need.comparison, f"{told[need.kind]} {need.size:.4g}", f"{need.power:.0%}",
         _number(need.seeds), _number(need.prompts))
        for need in found
    ]  # fmt: skip
    seeds, prompts = len([*protocol.training_seeds()]), len(protocol.prompts.ids)
    columns = (
        Column("comparison"), Column("what", rank=1), Column("power now", right=True),
        Column(f"seeds, with {prompts} prompts", right=True),
        Column(f"prompts, with {seeds} seeds", right=True),
    )  # fmt: skip
    print_table(columns, rows, f"{target:.0%} power on {protocol.primary}: {protocol.title}")
    return 0


def _number(needed: int | None) -> str:
    return "no number" if needed is None else str(needed)


def report(
    folders: Annotated[
        list[Path], typer.Argument(file_okay=False, help="Folders that 'bench ablate' has written.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="The page; report.html in the folder if it is one."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare, byte for byte.")] = False,
) -> int:
    """Write results as one page of HTML that needs no network: verdicts, tables, pictures, pairs.

    Of several folders it is one page that compares them.
    """
    from bench.report.page.render import page
    from trainers.files import write_text
    from trainers.input.paths import is_regular

    if out is None and len(folders) > 1:
        raise UserError("several folders: say where their page is to lie (--out FILE)")
    place = out or folders[0] / "report.html"
    text = page(folders)
    if check:
        if not is_regular(place) or place.read_bytes() != text.encode():
            raise UserError(
                f"{place} is not the page that the results give: run 'bench report' without --check"
            )
        typer.echo(f"{place}: the page is what the results give")
        return 0
    write_text(place, text)
    typer.echo(f"{place}: {len(text.encode()) / 1e6:.1f} MB")
    return 0
