"""Commands on images and their scores."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import (
    BatchOption,
    JsonOption,
    OfflineOption,
    RewardsOption,
    WeightsOption,
    parse_scoring,
    split,
)
from bench.terminal import plain_console


def score(
    source: Annotated[Path, typer.Argument(help="Folder of images, or parquet files with them.")],
    rewards: RewardsOption = "all",
    prompts: Annotated[
        Path | None,
        typer.Option(help="jsonl or csv with file and prompt, or a .txt in order of names."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File of the scores: parquet, or .csv.")
    ] = None,
    device: Annotated[str, typer.Option(help="A torch device, e.g. cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    batch_size: BatchOption = None,
    memory: Annotated[
        float | None, typer.Option(min=0, max=1e6, help="GiB that models may take.")
    ] = None,
    weights: WeightsOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> int:
    """Score any images; run again, it only scores what is missing."""
    # Read by transformers when it is imported, which is only if there is something to score.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from bench.cli.scoring import ScoreJob, print_scores, score_source
    from bench.rewards import expand

    settings = parse_scoring(weights, device=device, dtype=dtype, batch_size=batch_size)
    limit = None if memory is None else int(memory * 2**30)
    job = ScoreJob(source, expand(split(rewards)), prompts, out, settings, limit)
    return 0 if print_scores(score_source(job, plain_console(stderr=True)), as_json) else 2


def prefetch(
    rewards: RewardsOption = "all",
    weights: WeightsOption = None,
    offline: OfflineOption = False,
) -> int:
    """Download, verify and convert the weights of rewards; offline, check what is there."""
    from bench.cli.scoring import fetch_rewards
    from bench.rewards import expand

    settings = parse_scoring(weights)
    return 0 if fetch_rewards(expand(split(rewards)), settings, plain_console()) else 1
