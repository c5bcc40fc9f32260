"""Train the autoencoder of ``mini-sd``: AutoencoderKL with f = 8, 64 px to 8 x 8 x 4."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from bench.mini.build.fit import SHARDS, Schedule, fit
from bench.world.scenes import SIDE, Scene, draw_look, mislabel, render, scenes
from trainers.machine.processes import ALONE, Processes
from trainers.seeds import derive, numpy_generator

KL_WEIGHT = 2e-4
"""Weight of the mean KL per latent dimension beside the L1 error of pixels in [-1, 1]."""

BATCH = 16


def sample_pictures(
    seed: int, axis: str, index: int, count: int, mislabelled: float = 0.0
) -> tuple[Tensor, list[str]]:
    """Draw ``count`` pictures with their captions.

    Returns:
        Pixels in [-1, 1], ``float32[count, 3, 64, 64]``, and captions, of which a share
        ``mislabelled`` has one wrong word.
    """
    rng = numpy_generator(seed, axis, index)
    pool = scenes("train")
    picked: list[Scene] = [pool[i] for i in rng.integers(len(pool), size=count)]
    pictures = np.stack([render(scene, draw_look(rng)) for scene in picked])
    told = [mislabel(s, rng) if rng.random() < mislabelled else s for s in picked]
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, [scene.caption for scene in told]


def new_vae(seed: int) -> AutoencoderKL:
    """A randomly initialised autoencoder (0.7 M parameters)."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(seed, "vae init"))
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 16, 32, 64),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=SIDE,
        )


def train_vae(
    folder: Path,
    work: Path,
    seed: int,
    steps: int,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> None:
    """Train (or resume), set the scaling factor, and save to ``folder``."""
    vae = new_vae(seed)
    average = copy.deepcopy(vae).requires_grad_(False)

    def loss_at(step: int, shard: int) -> Tensor:
        index = step * SHARDS + shard
        pixels, _ = sample_pictures(seed, "vae data", index, BATCH // SHARDS)
        posterior = vae.encode(pixels).latent_dist
        rng = torch.Generator().manual_seed(derive(seed, "vae", index))
        noise = torch.randn(posterior.mean.shape, generator=rng)
        error = (vae.decode(posterior.mean + posterior.std * noise).sample - pixels).abs()
        divergence = posterior.kl().mean() / noise[0].numel()
        loss: Tensor = error.mean() + error.square().mean() + KL_WEIGHT * divergence
        return loss

    schedule = Schedule(steps=steps, lr=2e-3)
    fit(vae, average, loss_at, schedule, work / "vae.safetensors", say, processes)
    pixels, _ = sample_pictures(seed, "vae scale", 0, 512)
    with torch.no_grad():
        scale = 1 / float(average.encode(pixels).latent_dist.mean.std())
    average.register_to_config(scaling_factor=round(scale, 5))
    if processes.main:
        average.save_pretrained(folder)
