"""``bench score`` and ``bench prefetch``: what is asked, and what is shown."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.images.folder import SCORES
from bench.images.read import Item, prompts_beside, read_items, unnamed_images
from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.rewards.engine import (
    Scored,
    available_memory,
    describe,
    make_reward,
    score_items,
)
from bench.rewards.kit.shared import Shared
from bench.spec.model import Scoring
from bench.terminal import Column, print_json, print_table, print_text
from trainers.errors import UserError
from trainers.files import writable_folder

SHOWN = 10
"""Names of images that a line shows."""
PUBLISHED = "-official"
"""End of the name of a reward that a published package computes."""


@dataclass(frozen=True)
class ScoreJob:
    """What ``bench score`` is asked for."""

    source: Path
    rewards: tuple[str, ...]
    prompts: Path | None
    out: Path | None
    settings: Scoring
    memory: int | None
    """Bytes that models may take at a time; None for three quarters of what is free."""


def score_source(job: ScoreJob, console: Console) -> dict[str, Any]:
    """Score images and return a summary: per reward its figures, or why there are none.

    Raises:
        UserError: If images, prompts or a reward's name are wrong.
    """
    shared = Shared()
    rewards = {name: make_reward(name, job.settings, shared) for name in job.rewards}
    needed = any(reward.card.text is not None for reward in rewards.values())
    items = read_items(job.source, job.prompts, needed)
    listed = (job.prompts or prompts_beside(job.source)) is not None
    folder = job.source if job.source.is_dir() else job.source.parent
    stem = "" if job.source.is_dir() else f"{job.source.stem}-"
    path = job.out or folder / f"{stem}{SCORES}"
    writable_folder(path.parent)
    memory = job.memory or available_memory(job.settings.device)
    shared.memory = memory

    def fail(name: str, error: Exception) -> None:
        console.print(f"{name}: {describe(error)}", style="red", soft_wrap=True)

    with progress_bars(console, rewards, len(items)) as report:
        scored = score_items(items, rewards, path, memory, report, fail)
    return {
        "images": len({item.sha256 for item in items}),
        "prompts": len({item.prompt for item in items}),
        "scores": str(path),
        "rewards": [_summary(name, r, scored, items) for name, r in rewards.items()],
        "published": {
            name: _furthest(scored.of(name, items), scored.of(f"{name}{PUBLISHED}", items))
            for name in rewards
            if f"{name}{PUBLISHED}" in rewards
        },
        "unread": scored.missing(),
        "unnamed": unnamed_images(job.source, items) if listed else [],
    }


@contextmanager
def progress_bars(
    console: Console, rewards: Iterable[str], total: int
) -> Iterator[Callable[[str, int], None]]:
    """A bar for each reward on a terminal, nothing anywhere else."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = {name: progress.add_task(name, total=total) for name in rewards}
        yield lambda name, count: progress.update(bars[name], completed=count)


def _furthest(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """Largest difference of two scores of one image, None if no image has both."""
    pairs = zip(ours, theirs, strict=True)
    gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    return max(gaps, default=None)


def _summary(name: str, reward: Reward, scored: Scored, items: Sequence[Item]) -> dict[str, Any]:
    values = [score for score in scored.of(name, items) if score is not None]
    return {
        "reward": name,
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values)) if values else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "scored": len(values),
        "missing": len(items) - len(values),
        "scale": reward.card.scale,
        "signature": scored.signatures.get(name),
        "failed": describe(error) if (error := scored.failed.get(name)) else None,
    }


def print_scores(summary: dict[str, Any], as_json: bool) -> bool:
    """Print a summary of scores; returns whether every score is there."""
    gaps = [row for row in summary["rewards"] if row["missing"]]
    if as_json:
        print_json(summary)
        return not gaps
    title = f"{summary['images']} images, {summary['prompts']} prompts"
    figures = ("mean", "sd", "min", "max")
    columns = [Column("reward"), *(Column(name, right=True) for name in (*figures, "missing"))]
    rows = [
        [
            row["reward"],
            *("-" if row[name] is None else f"{row[name]:.4f}" for name in figures),
            str(row["missing"]),
        ]
        for row in summary["rewards"]
    ]
    print_table(columns, rows, title)
    for row in summary["rewards"]:
        if row["signature"]:
            typer.echo(row["signature"])
    typer.echo(f"scores of single images: {summary['scores']}")
    for name, gap in summary["published"].items():
        told = "no image has both" if gap is None else f"they differ by at most {gap:.1e}"
        print_text(f"{name} and {name}{PUBLISHED}: {told}")
    for row in gaps:
        why = row["failed"] or f"{row['missing']} scores are missing or not finite"
        print_text(f"{row['reward']}: {why}", "red")
    for why in summary["unread"]:
        print_text(why, "red")
    if unnamed := summary["unnamed"]:
        told = ", ".join(unnamed[:SHOWN]) + (", ..." if len(unnamed) > SHOWN else "")
        print_text(f"{len(unnamed)} images that no prompt names are not scored: {told}", "yellow")
    return not gaps


def fetch_rewards(rewards: Sequence[str], settings: Scoring, console: Console) -> bool:
    """Download (unless that is forbidden), verify and convert the files of rewards.

    Returns whether all are there; what is wrong with a reward does not stop the others.
    """
    complete = True
    for name in rewards:
        reward = REWARDS.get(name)(weights=settings.weights.get(name), download=True)
        try:
            found = reward.files
            reward.load()
        except UserError as error:
            complete = False
            console.print(f"{name}: {error}", style="red", soft_wrap=True)
            continue
        known = {file for source in reward.card.weights for file in source.sha256}
        for file, path in found.paths.items():
            how = "as pinned" if file in known and found.genuine else "recorded"
            size = path.stat().st_size / 1e6
            console.print(
                f"{name}: {file} {size:.1f} MB sha256 {found.sha256[file]} {how}",
                soft_wrap=True,
            )
    return complete
