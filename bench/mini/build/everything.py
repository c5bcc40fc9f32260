"""The whole recipe: autoencoder, text encoder and UNet, rewards, preference pairs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.assets import write_sums
from trainers.machine.spawn import send, spawn

VAE_STEPS = 3_400
DIFFUSION_STEPS = 2_000
PAIRS = 6_000
SAMPLER_STEPS = 12
GUIDANCE = 3.0
"""As images are drawn in the shipped specs: what pairs differ in is what is judged."""


def build(out: Path, seed: int, say: Callable[[str], None]) -> None:
    """Make every shipped file below ``out``; run again, it goes on where it was interrupted."""
    os.environ["OMP_NUM_THREADS"] = "1"  # Read by torch when it is imported.
    from bench.mini.build.diffusion import train_diffusion
    from bench.mini.build.fit import SHARDS
    from bench.mini.build.pairs import make_pairs
    from bench.mini.build.prompts import SETS, write_prompts
    from bench.mini.build.rewards.train import RewardSteps, finished, train_rewards
    from bench.mini.build.vae import train_vae

    work, weights = out / "work", out / "weights"
    base = weights / "sd"
    for name in SETS:
        write_prompts(out / "prompts", name)
    if not (base / "vae" / "config.json").exists():
        train_together(SHARDS, say, train_vae, base / "vae", work, seed, VAE_STEPS)
    if not (base / "model_index.json").exists():
        train_together(SHARDS, say, train_diffusion, base, work, seed, DIFFUSION_STEPS)
    if not finished(weights / "rewards"):
        train_rewards(weights / "rewards", work, base, seed, RewardSteps(), say)
    make_pairs(weights, work, base, seed, PAIRS, SAMPLER_STEPS, GUIDANCE, say)
    write_sums(weights)
    say(f"done: {weights} is what ships as bench/mini/weights, {out / 'prompts'} as prompts")


def train_together(
    count: int, say: Callable[[str], None], train: Callable[..., None], *arguments: Any
) -> None:
    """Call ``train(*arguments, say, processes)`` in several processes of one group."""
    spawn(count, _train_together, train, arguments, on_message=say)


def _train_together(train: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    from trainers.machine.processes import joined

    with joined() as processes:
        train(*arguments, send, processes)
