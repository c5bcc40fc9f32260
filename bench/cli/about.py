"""Commands on the installation and on what can be named in a spec."""

from typing import Annotated

import typer

from bench.cli.options import JsonOption
from trainers.errors import UserError


def list_plugins(
    kind: Annotated[str | None, typer.Argument(help="rewards, objectives, specs, ...")] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> int:
    """Show what can be named in a spec."""
    from bench.cli.catalogue import catalogue, print_catalogue

    print_catalogue(catalogue(kind), as_json, as_markdown)
    return 0


def doctor(as_json: JsonOption = False) -> int:
    """Check the installation: versions, shipped files, and what is known to break."""
    from bench.cli.doctor import examine, print_findings

    findings = examine()
    print_findings(findings, as_json)
    return 0 if all(f.good for f in findings) else 1


def convert(
    beta: Annotated[
        float | None, typer.Option(min=1e-9, max=1e12, help="A beta to convert.")
    ] = None,
    source: Annotated[str, typer.Option(help="Who quotes them.")] = "diffusion-dpo code",
    latent: Annotated[str, typer.Option(help="Shape of a latent, CxHxW.")] = "4x64x64",
    lr: Annotated[
        float | None, typer.Option(min=1e-30, max=1e6, help="A rate as that source gives it.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=10**6, help="Pairs per optimiser step, all processes.")
    ] = None,
) -> int:
    """Say what the beta and the learning rate of other sources are in a spec."""
    from bench.cli.convert import convert_beta, convert_lr

    if beta is None and lr is None:
        raise UserError("nothing to convert: give --beta, or --lr with --batch-size")
    if beta is not None:
        for line in convert_beta(beta, source, latent):
            typer.echo(line)
    if lr is not None:
        typer.echo(convert_lr(lr, batch_size, source))
    return 0
