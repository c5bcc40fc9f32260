"""Paired images: the noise of an image depends on its prompt and index alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from bench.images import image_name, write_index
from trainers.errors import UserError
from trainers.files import sha256_file, write_atomically
from trainers.seeds import derive

if TYPE_CHECKING:
    from bench.stages import GenerateStage, Report

SAMPLERS: dict[str, Any] = {"ddim": DDIMScheduler}


def image_generator(seed: int, prompt: str, index: int) -> torch.Generator:
    """The generator of one image, on the CPU whatever the device."""
    return torch.Generator().manual_seed(derive(seed, "image", prompt, index))


def load_pipeline(base: Path, network: Path | None, sampler: str) -> StableDiffusionPipeline:
    """The pipeline of a base model, with a trained network in its place if one is given.

    Raises:
        UserError: If the sampler is unknown.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: known are {', '.join(SAMPLERS)}")
    unet = UNet2DConditionModel.from_pretrained(
        (network or base) / "unet", dtype=torch.float32, local_files_only=True
    )
    pipeline = StableDiffusionPipeline.from_pretrained(
        base,
        unet=unet,
        safety_checker=None,
        requires_safety_checker=False,
        dtype=torch.float32,
        local_files_only=True,
    )
    pipeline.scheduler = SAMPLERS[sampler].from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(stage: "GenerateStage", network: Path | None, folder: Path, report: "Report") -> None:
    """Write the images of a stage as PNG files, and an index with their hashes.

    Images are made in fixed batches, of which a finished one is not made again: the same batches
    give the same bits, whether or not the run was interrupted.
    """
    settings = stage.settings
    indices = range(stage.first_index, stage.first_index + settings.images_per_prompt)
    todo = [(name, prompt, k) for name, prompt in stage.prompts for k in indices]
    pipeline = load_pipeline(stage.base, network, settings.sampler)
    for start in range(0, len(todo), settings.batch_size):
        part = todo[start : start + settings.batch_size]
        paths = [folder / image_name(prompt, k) for _, prompt, k in part]
        if not all(path.exists() for path in paths):
            images = pipeline(
                [prompt for _, prompt, _ in part],
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                eta=settings.eta,
                generator=[image_generator(settings.seed, prompt, k) for _, prompt, k in part],
            ).images
            for path, image in zip(paths, images, strict=True):
                _save(image, path)
        report(start + len(part))
    rows = [
        {"prompt": prompt, "k": k, "file": image_name(prompt, k),
         "sha256": sha256_file(folder / image_name(prompt, k))}
        for _, prompt, k in todo
    ]  # fmt: skip
    write_index(folder, rows)


def _save(image: Image.Image, path: Path) -> None:
    write_atomically(path, lambda part: image.save(part, format="PNG"))
