"""One stage on its own: train an arm, make images, score a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.assets import folder_sha256, model_folder
from bench.cli import print_json
from bench.experiment import prepare
from bench.generate import generate
from bench.progress import scoring_progress
from bench.prompts import load_prompts
from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.rewards.shared import Shared
from bench.score import SCORES, Scored, available_memory, describe, make_reward, score_items
from bench.sources import Item, read_items
from bench.spec import Generate, Scoring, load_spec
from bench.stages import GenerateStage
from trainers.backbones import BACKBONES
from trainers.core import Trainer
from trainers.data.latents import encode_pairs
from trainers.data.pairs import read_pairs
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text, write_text
from trainers.metrics import StepMetrics


def train_arm(source: str, arm: str, seed: int, out: Path, console: Console) -> None:
    """Train one arm of a spec into ``out``.

    Raises:
        UserError: If the spec has no such arm.
    """
    spec = load_spec(source, seeds=(seed,))
    experiment = prepare(spec)
    arms = {entry.name: entry for entry in experiment.matrix.arms}
    if arm not in arms:
        raise UserError(f"spec {source!r} has no arm {arm!r}: expected one of {', '.join(arms)}")
    stage = next(s.images.train for s in experiment.sets if s.arm == arm)
    assert stage is not None
    backbone = BACKBONES.get(spec.backbone)(stage.base)
    data = encode_pairs(read_pairs(stage.latents.data), backbone)
    out.mkdir(parents=True, exist_ok=True)

    def show(step: int, metrics: StepMetrics) -> None:
        if step % 10 == 0 or step == stage.config.steps:
            console.print(
                f"step {step}/{stage.config.steps} loss {metrics.loss:.4f} "
                f"accuracy {metrics.accuracy:.2f} margin {metrics.margin:+.2e}",
                highlight=False,
            )

    Trainer(stage.config, backbone, data).run(out, show)
    console.print(f"run {stage.config.run_id()[:16]} is in {out}", highlight=False)


def generate_images(
    base: str,
    network: Path | None,
    prompts: str,
    limit: int | None,
    settings: Generate,
    out: Path,
    console: Console,
) -> None:
    """Make the images of a prompt set.

    Raises:
        UserError: If a folder or the prompts are missing, or ``out`` holds other images.
    """
    folder = model_folder(base)
    if network is not None and not (network / "unet").is_dir():
        raise UserError(f"expected a folder with a trained 'unet' in it, got {network}")
    stage = GenerateStage(
        "images", settings, 0, load_prompts(prompts, limit).items, "stable-diffusion", folder,
        folder_sha256(folder), None,
    )  # fmt: skip
    unet = folder_sha256(network / "unet") if network is not None else None
    identity, mark = sha256_text(canonical_json([stage.id, unet])), out / ".identity"
    if mark.is_file() and mark.read_text() != identity:
        raise UserError(f"{out} holds images of other settings: give an empty folder, or delete it")
    write_text(mark, identity)
    generate(stage, network, out, lambda n: console.print(f"{n}/{stage.units} images"))


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
    items = read_items(job.source, job.prompts)
    folder = job.source if job.source.is_dir() else job.source.parent
    stem = "" if job.source.is_dir() else f"{job.source.stem}-"
    path = job.out or folder / f"{stem}{SCORES}"
    memory = job.memory or available_memory(job.settings.device)
    shared.memory = memory
    with scoring_progress(console, rewards, len(items)) as report:
        scored = score_items(items, rewards, path, memory, report)
    return {
        "images": len({item.sha256 for item in items}),
        "prompts": len({item.prompt for item in items}),
        "scores": str(path),
        "rewards": [_summary(name, r, scored, items) for name, r in rewards.items()],
        "unread": [str(error) for error in scored.unread.values()],
    }


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
    console = Console()
    title = f"{summary['images']} images, {summary['prompts']} prompts"
    columns = ("reward", "mean", "sd", "min", "max", "missing")
    table = Table(*columns, title=title, title_justify="left")
    for row in summary["rewards"]:
        figures = ("-" if row[c] is None else f"{row[c]:.4f}" for c in columns[1:5])
        table.add_row(row["reward"], *figures, str(row["missing"]))
    console.print(table)
    for row in summary["rewards"]:
        console.print(f"{row['reward']}: {row['signature']}", markup=False, soft_wrap=True)
    console.print(f"scores of single images: {summary['scores']}", markup=False, soft_wrap=True)
    for row in gaps:
        why = row["failed"] or f"{row['missing']} scores are missing or not finite"
        console.print(f"{row['reward']}: {why}", style="red", markup=False, soft_wrap=True)
    for why in summary["unread"]:
        console.print(why, style="red", markup=False, soft_wrap=True)
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
            console.print(f"{name}: {error}", style="red", markup=False, soft_wrap=True)
            continue
        known = {file for source in reward.card.weights for file in source.sha256}
        for file, path in found.paths.items():
            how = "as pinned" if file in known and found.genuine else "recorded"
            size = path.stat().st_size / 1e6
            console.print(
                f"{name}: {file} {size:.1f} MB sha256 {found.sha256[file]} {how}",
                markup=False, soft_wrap=True, highlight=False,
            )  # fmt: skip
    return complete
