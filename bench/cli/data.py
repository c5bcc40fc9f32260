"""``bench data``: preference pairs."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import JsonOption, OfflineOption, WeightsOption, parse_scoring, parse_source

SHOWN = 20
"""Pairs that are named of those left out; all are counted."""

app = typer.Typer(help="Preference pairs.", no_args_is_help=True)

SourceArgument = Annotated[
    str,
    typer.Argument(help="Parquet, jsonl or json of pairs, or '{name: ..., path: ...}' as in spec."),
]


@app.command()
def check(source: SourceArgument, as_json: JsonOption = False) -> int:
    """Look at every pair: labels, damaged images, sizes, repetitions. Exit code 1 if refused."""
    from bench.assets import pairs_source
    from bench.pairs.check import check_source, print_check

    found = check_source(pairs_source(parse_source(source)))
    print_check(found, as_json)
    return 1 if found.problems() else 0


@app.command()
def label(
    source: SourceArgument,
    reward: Annotated[str, typer.Option(help="The reward that judges.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    tie: Annotated[float, typer.Option(min=0, help="Scores this close are a tie.")] = 0.0,
    device: Annotated[str, typer.Option(help="A torch device, e.g. cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward pass.")] = None,
    weights: WeightsOption = None,
    offline: OfflineOption = False,
) -> int:
    """Rank every pair anew by a reward, into a parquet file of its own."""
    from bench.assets import pairs_source
    from bench.pairs.label import label_pairs
    from bench.rewards.engine import make_reward
    from bench.rewards.kit.shared import Shared
    from bench.terminal import print_text, silence_libraries

    silence_libraries()
    settings = parse_scoring(weights, device=device, dtype=dtype, batch_size=batch_size)
    judge = make_reward(reward, settings, Shared())
    done = label_pairs(pairs_source(parse_source(source)), judge, out, tie)
    typer.echo(
        f"{out}: {done.written} pairs, {done.ties} ties, {done.unscored} without a score, "
        f"{done.damaged} damaged and left out; {done.agree} of {done.decided} pairs decided before "
        f"are decided alike. In a spec that uses it: labelled_by: [{reward}]"
    )
    for line in done.reasons[:SHOWN]:
        print_text(f"left out: {line}", "yellow")
    if len(done.reasons) > SHOWN:
        print_text(f"left out: {len(done.reasons) - SHOWN} more", "yellow")
    return 0
