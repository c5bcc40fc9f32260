"""The stage that makes images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bench.images.draw import draw, load_pipeline
from bench.images.folder import image_name, write_index
from bench.images.samplers import fitting
from bench.spec.model import Cost, Generate
from bench.stages.base import Report, Stage
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.files import sha256_file, write_atomically


@dataclass(frozen=True)
class GenerateStage(Stage):
    """The images of one model for a prompt set."""

    kind: ClassVar[str] = "images"
    order: ClassVar[int] = 2
    settings: Generate
    first_index: int
    """Index of the first image of each prompt: other indices are other noises."""
    prompts: tuple[tuple[str, str], ...]
    """(id, prompt)."""
    backbone: str
    base: Path
    base_sha256: str
    train: TrainStage | None
    """None for the base model."""

    def __post_init__(self) -> None:
        """Refuse a sampler that does not fit now, rather than after the training.

        Raises:
            UserError: If the backbone or the sampler is unknown, one does not fit the other, or
                the sampler takes no eta and one is set.
        """
        fitting(self.settings.sampler, self.backbone, self.settings.eta)

    def key(self) -> dict[str, Any]:
        """See the base class. Prompt ids are names; they do not enter."""
        prompts = [prompt for _, prompt in self.prompts]
        return images_key(self.settings, prompts, self.backbone, self.base_sha256, self.first_index)

    @property
    def units(self) -> int:
        """Images."""
        return len(self.prompts) * self.settings.images_per_prompt

    def expected_seconds(self, cost: Cost) -> float:
        """See the base class."""
        return self.units * cost.image

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.train,) if self.train else ()

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        network = self.train.output(store) if self.train else None
        prompts = [prompt for _, prompt in self.prompts]
        write_images(
            self.base, network, self.backbone, prompts, self.settings, folder, report,
            self.first_index,
        )  # fmt: skip


def images_key(
    settings: Generate,
    prompts: Sequence[str],
    backbone: str,
    base_sha256: str,
    first_index: int = 0,
) -> dict[str, Any]:
    """All that decides images of a base model; a trained network in its place comes beside it."""
    return {
        "settings": settings.model_dump(mode="json", exclude=set(Generate.EXECUTION)),
        "first_index": first_index,
        "prompts": list(prompts),
        "backbone": backbone,
        "base": base_sha256,
    }


def write_images(
    base: Path,
    network: Path | None,
    backbone: str,
    prompts: Sequence[str],
    settings: Generate,
    folder: Path,
    report: Report,
    first_index: int = 0,
) -> None:
    """Write the images of prompts as PNG files, and an index with their hashes.

    Images are made in fixed batches, of which a finished one is not made again: the same batches
    give the same bits, whether or not the run was interrupted.

    Args:
        base: Folder of the base model.
        network: Folder of a trained network that takes the place of the base model's, or None.
        backbone: Kind of the model.
        prompts: None of them twice.
        settings: How images are made, and how many of each prompt.
        folder: Where they go.
        report: Told the number of images that are done.
        first_index: Index of the first image of each prompt.
    """
    indices = range(first_index, first_index + settings.images_per_prompt)
    keys = [(prompt, k) for prompt in prompts for k in indices]
    pipeline = load_pipeline(
        base, network, settings.sampler, backbone, settings.dtype, settings.device
    )
    for start in range(0, len(keys), settings.batch_size):
        part = keys[start : start + settings.batch_size]
        paths = [folder / image_name(*key) for key in part]
        if not all(path.exists() for path in paths):
            images = draw(pipeline, [prompt for prompt, _ in part], part, settings)
            for path, image in zip(paths, images, strict=True):
                write_atomically(path, partial(image.save, format="PNG"))
        report(start + len(part))
    rows = [
        {"prompt": prompt, "k": k, "file": image_name(prompt, k),
         "sha256": sha256_file(folder / image_name(prompt, k))}
        for prompt, k in keys
    ]  # fmt: skip
    write_index(folder, rows)
