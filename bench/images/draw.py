"""Paired images: the noise of an image depends on its key alone, usually prompt and index."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench.images.folder import Key
from bench.images.samplers import SAMPLERS, fitting
from bench.spec.model import Generate
from trainers.backbones import BACKBONES
from trainers.machine.execution import set_matmul
from trainers.machine.precision import Precision
from trainers.seeds import derive


def image_generator(seed: int, prompt: str, index: int) -> torch.Generator:
    """The generator of one image, on the CPU whatever the device."""
    return torch.Generator().manual_seed(derive(seed, "image", prompt, index))


def load_pipeline(
    base: Path,
    network: Path | None,
    sampler: str,
    backbone: str = "stable-diffusion",
    dtype: Precision = "float32",
    device: str = "cpu",
) -> Any:
    """The pipeline of a base model, with a trained network in its place if one is given.

    Raises:
        UserError: If the backbone or the sampler is unknown, or one does not fit the other.
    """
    chosen = fitting(sampler, backbone)
    model = BACKBONES.get(backbone)(base, device)
    pipeline = model.load_pipeline(network, dtype)
    pipeline.scheduler = chosen.of(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: Any, prompts: Sequence[str], keys: Sequence[Key], settings: Generate
) -> list[Image.Image]:
    """One batch of images.

    Args:
        pipeline: What :func:`load_pipeline` gave for the sampler of the settings.
        prompts: One for each image.
        keys: What each image takes its noise from.
        settings: Steps, guidance, eta, size and seed.
    """
    set_matmul(settings.matmul)
    eta = {"eta": settings.eta} if SAMPLERS[settings.sampler].takes_eta else {}
    images: list[Image.Image] = pipeline(
        list(prompts),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        height=settings.height,
        width=settings.width,
        generator=[image_generator(settings.seed, text, index) for text, index in keys],
        **eta,
    ).images
    return images
