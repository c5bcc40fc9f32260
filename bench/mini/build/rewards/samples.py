"""Pictures of the base model for the rewards to learn from: four of each training caption."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.images.draw import draw, load_pipeline
from bench.spec.model import Generate
from bench.world.scenes import scenes
from trainers.files import write_atomically
from trainers.input.tensors import read_tensors

GROUP = 4
"""Pictures of one caption, so that annotators can rank them."""
CAPTIONS = 8  # in one batch of the sampler
GUIDANCE = (2.0, 3.0, 4.0)
"""Taken in turn: the rewards will judge pictures made at several scales."""


def sample_groups(
    base: Path, work: Path, seed: int, captions: int, steps: int, say: Callable[[str], None]
) -> Tensor:
    """Pictures ``uint8[captions, 4, 3, 64, 64]`` of the first captions of the training split.

    Their noises are no pair's: these pictures are not those of ``pairs.parquet``. Finished batches
    are kept in ``work``.
    """
    every = [scene.caption for scene in scenes("train")[:captions]]
    pipeline = load_pipeline(base, None, "ddim")
    parts: list[Tensor] = []
    for number, start in enumerate(range(0, len(every), CAPTIONS)):
        path = work / "reward-samples" / f"{start:06d}.safetensors"
        if not path.exists():
            batch = every[start : start + CAPTIONS]
            guidance = GUIDANCE[number % len(GUIDANCE)]
            settings = Generate(sampler="ddim", steps=steps, guidance=guidance, seed=seed)
            prompts = [caption for caption in batch for _ in range(GROUP)]
            keys = [(f"rewards: {caption}", side) for caption in batch for side in range(GROUP)]
            images = draw(pipeline, prompts, keys, settings)
            pictures = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
            groups = pictures.movedim(-1, 1).unflatten(0, (len(batch), GROUP)).contiguous()
            write_atomically(path, partial(save_file, {"pictures": groups}))
            if number % 20 == 0:
                say(f"reward samples: {start + len(batch)}/{len(every)} captions")
        parts.append(read_tensors(path)["pictures"])
    return torch.cat(parts)
