"""Pictures of the base model for the rewards to learn from: four of each training caption."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.images.draw import image_generator, load_pipeline
from bench.mini.world import scenes
from trainers.files import write_atomically

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
    told = [scene.caption for scene in scenes("train")[:captions]]
    pipeline = load_pipeline(base, None, "ddim")
    parts: list[Tensor] = []
    for start in range(0, len(told), CAPTIONS):
        path = work / "reward-samples" / f"{start:06d}.safetensors"
        if not path.exists():
            some = told[start : start + CAPTIONS]
            pictures = pipeline(
                [caption for caption in some for _ in range(GROUP)],
                num_inference_steps=steps,
                guidance_scale=GUIDANCE[start // CAPTIONS % len(GUIDANCE)],
                generator=[
                    image_generator(seed, f"rewards: {caption}", side)
                    for caption in some
                    for side in range(GROUP)
                ],
                output_type="np",
            ).images
            batch = torch.from_numpy(np.rint(255 * pictures).astype(np.uint8)).movedim(-1, 1)
            whole = {"pictures": batch.unflatten(0, (len(some), GROUP)).contiguous()}
            write_atomically(path, partial(save_file, whole))
            if start // CAPTIONS % 20 == 0:
                say(f"reward samples: {start + len(some)}/{len(told)} captions")
        parts.append(load_file(path)["pictures"])
    return torch.cat(parts)
