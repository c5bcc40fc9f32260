"""``bench mini``: the miniature world."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import LARGEST_SEED, JsonOption
from bench.terminal import say

app = typer.Typer(help="The miniature world.", no_args_is_help=True)


@app.command()
def build(
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the files and the work in progress.")
    ],
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of everything.")] = 0,
) -> int:
    """Make the shipped files from nothing: about two and a half hours on 2 cores, resumable."""
    from bench.mini.build.everything import build
    from bench.terminal import silence_libraries

    silence_libraries()
    build(out, seed, say)
    return 0


@app.command()
def check(
    limit: Annotated[int, typer.Option(min=2, max=10**9, help="Number of prompts.")] = 220,
    prompts: Annotated[str, typer.Option(help="Name of a prompt set.")] = "mini-dev",
    guidance: Annotated[float, typer.Option(min=0, max=1000)] = 3.0,
    steps: Annotated[int, typer.Option(min=1, max=10_000)] = 12,
    grid: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write a picture grid here.")
    ] = None,
) -> int:
    """Let the oracle judge images of the base model."""
    from bench.mini.check import check, print_check
    from bench.terminal import silence_libraries

    silence_libraries()

    print_check(check(prompts, limit, guidance, steps, grid))
    return 0


@app.command()
def agree(
    rewards: Annotated[
        str | None, typer.Option(help="Names with commas between them; default: miniatures.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, max=10**6, help="Drawn pairs of each kind.")] = 400,
    images: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder that 'bench generate' has written, 2 a prompt."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the drawn pairs.")
    ] = 0,
    as_json: JsonOption = False,
) -> int:
    """How often rewards prefer the picture that the oracle prefers."""
    from bench.mini.agree import agreements, miniatures, print_agreements
    from bench.terminal import silence_libraries

    silence_libraries()

    names = miniatures() if rewards is None else [name.strip() for name in rewards.split(",")]
    print_agreements(list(agreements(names, pairs, seed, images)), as_json)
    return 0
