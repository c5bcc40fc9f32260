"""Paired images: the noise of an image depends on its key alone, usually prompt and index."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from bench.images.folder import Key
from bench.images.samplers import SAMPLERS, fitting
from bench.spec.model import Generate
from trainers.backbones import BACKBONES
from trainers.errors import UserError
from trainers.machine.execution import set_matmul
from trainers.machine.precision import Precision
from trainers.seeds import derive

SHOWN = 60
"""Characters of a prompt that a message shows."""
MENDS = {
    "float16": "it overflows, set generate.dtype (--dtype) to bfloat16 or float32",
    "bfloat16": "set generate.dtype (--dtype) to float32",
    "float32": "lower the guidance, or train with a lower learning rate, or take another model",
}
"""What to try against images that are not finite, by precision."""


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

    Raises:
        UserError: If the scheduler has no such steps, or an image is not finite, which as a picture
            would be black.
    """
    _check_steps(pipeline.scheduler, settings)
    set_matmul(settings.matmul)
    eta = {"eta": settings.eta} if SAMPLERS[settings.sampler].takes_eta else {}
    with _only_finite(pipeline, keys, settings):
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


def _check_steps(scheduler: Any, settings: Generate) -> None:
    """Refuse a number of steps that leads beyond the timesteps of training."""
    last = scheduler.config.num_train_timesteps - (SAMPLERS[settings.sampler].process != "flow")
    try:
        scheduler.set_timesteps(settings.steps)
        times = scheduler.timesteps
        fits = float(times.max()) <= last and bool((times.diff() < 0).all())
    except (ValueError, IndexError):
        fits = False
    if not fits:
        raise UserError(
            f"generate.steps: expected fewer steps of sampler {settings.sampler!r} for a model of "
            f"{scheduler.config.num_train_timesteps} training timesteps, got {settings.steps}"
        )


@contextmanager
def _only_finite(pipeline: Any, keys: Sequence[Key], settings: Generate) -> Iterator[None]:
    """Look at what goes into the autoencoder's decoder and comes out, before it is clamped."""

    def look(_: nn.Module, latents: tuple[Tensor], pixels: Tensor) -> None:
        for source, values in (("sampler", latents[0]), ("autoencoder", pixels)):
            finite = values.isfinite().flatten(1).all(1).tolist()
            if not all(finite):
                text, k = keys[finite.index(False)]
                raise UserError(
                    f"image {k} of prompt {text[:SHOWN]!r}: expected finite values, but the "
                    f"{source} gave NaN or infinities in {settings.dtype}: {MENDS[settings.dtype]}"
                )

    hook = pipeline.vae.decoder.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()
