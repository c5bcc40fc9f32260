"""Paired images: the noise of an image depends on its prompt and index alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from bench.images.folder import image_name, write_index
from bench.images.samplers import fitting
from trainers.backbones import BACKBONES
from trainers.files import sha256_file, write_atomically
from trainers.machine.precision import Precision
from trainers.seeds import derive

if TYPE_CHECKING:
    from bench.stages.kinds import GenerateStage, Report


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


def generate(stage: "GenerateStage", network: Path | None, folder: Path, report: "Report") -> None:
    """Write the images of a stage as PNG files, and an index with their hashes.

    Images are made in fixed batches, of which a finished one is not made again: the same batches
    give the same bits, whether or not the run was interrupted.
    """
    settings = stage.settings
    indices = range(stage.first_index, stage.first_index + settings.images_per_prompt)
    todo = [(name, prompt, k) for name, prompt in stage.prompts for k in indices]
    sampler = settings.sampler
    pipeline = load_pipeline(
        stage.base, network, sampler, stage.backbone, settings.dtype, settings.device
    )
    eta = {"eta": settings.eta} if fitting(sampler, stage.backbone).takes_eta else {}
    for start in range(0, len(todo), settings.batch_size):
        part = todo[start : start + settings.batch_size]
        paths = [folder / image_name(prompt, k) for _, prompt, k in part]
        if not all(path.exists() for path in paths):
            images = pipeline(
                [prompt for _, prompt, _ in part],
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                height=settings.height,
                width=settings.width,
                generator=[image_generator(settings.seed, prompt, k) for _, prompt, k in part],
                **eta,
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
