"""The stage that makes images.

The images of one network by one way of sampling lie together in a pool of the store, whatever sets
they stand in: those that one more prompt asks for, or a second image of each, are all that is
drawn. An image set is a folder of its own with an index, and of hard links to images of the pool.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.images.draw import draw, load_pipeline
from bench.images.folder import (
    Key,
    add_image,
    extend_index,
    image_name,
    look,
    write_index,
)
from bench.images.samplers import fitting
from bench.spec.launch import Work
from bench.spec.model import Cost, Generate
from bench.stages.base import Report, Stage
from bench.stages.encode import verify_model
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.backbones import BACKBONES
from trainers.backbones.base import ADAPTER_FILE
from trainers.files import canonical_json, sha256_text, tell
from trainers.sealed import SEALS, Seals


@dataclass(frozen=True)
class GenerateStage(Stage):
    """The images of one model for a prompt set."""

    kind: ClassVar[str] = "images"
    work: ClassVar[Work] = "generate"
    order: ClassVar[int] = 3
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

    @property
    def prefix(self) -> str:
        """What stands before every prompt, by the objective that the network was trained with."""
        prefixes = self.train.config.objective.prefixes if self.train else None
        return prefixes[0] if prefixes else ""

    def key(self) -> dict[str, Any]:
        """See the base class. Prompt ids are names; they do not enter."""
        return _prefixed(self.prefix) | {
            "settings": self.settings.model_dump(mode="json", exclude=set(Generate.EXECUTION)),
            "first_index": self.first_index,
            "prompts": [prompt for _, prompt in self.prompts],
            "backbone": self.backbone,
            "base": self.base_sha256,
        }

    @property
    def units(self) -> int:
        """Images."""
        return len(self.prompts) * self.settings.images_per_prompt

    @property
    def device(self) -> str:
        """See the base class."""
        return self.settings.device

    def expected_seconds(self, cost: Cost) -> float:
        """See the base class."""
        return self.units * cost.image

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.train,) if self.train else ()

    def verify_inputs(self) -> None:
        """See the base class."""
        verify_model(self.backbone, self.base, self.base_sha256)

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        network = self.train.output(store) if self.train else None
        prompts = [prompt for _, prompt in self.prompts]
        identity = pool_identity(
            self.settings, self.backbone, self.base_sha256, self._trained(store), self.prefix
        )
        pool = store.pool(self.kind) / identity[:16]
        rows = write_images(
            self.base, network, self.backbone, prompts, self.settings, pool, report,
            self.first_index, self.prefix,
        )  # fmt: skip
        for row in rows:
            _link(pool / row["file"], folder / row["file"])
        write_index(folder, rows)

    def _trained(self, store: Store) -> dict[str, str]:
        """sha256 of the files of the network that takes the place of the base model's."""
        status = self.train.done(store) if self.train else None
        part = f"{BACKBONES.get(self.backbone).network_part}/"
        outputs = status.outputs if status else {}
        return {k: v for k, v in outputs.items() if k == ADAPTER_FILE or k.startswith(part)}


def _prefixed(prefix: str) -> dict[str, str]:
    """What a prefix adds to an identity: nothing, where there is none."""
    return {"prefix": prefix} if prefix else {}


def pool_identity(
    settings: Generate, backbone: str, base_sha256: str, trained: Mapping[str, str],
    prefix: str = "",
) -> str:  # fmt: skip
    """All that decides an image beside its prompt and its index, as hex.

    Args:
        settings: How images are made; how many of each prompt does not matter.
        backbone: Kind of the model.
        base_sha256: Identity of the base model.
        trained: sha256 by name of the files of a network in its place; empty for the base model.
        prefix: What stands before every prompt.
    """
    execution = {*Generate.EXECUTION, "images_per_prompt"}
    made = settings.model_dump(mode="json", exclude=execution)
    key = {"settings": made, "backbone": backbone, "base": base_sha256, "trained": dict(trained)}
    key |= _prefixed(prefix)
    return sha256_text(canonical_json(key))


def write_images(
    base: Path,
    network: Path | None,
    backbone: str,
    prompts: Sequence[str],
    settings: Generate,
    folder: Path,
    report: Report,
    first_index: int = 0,
    prefix: str = "",
) -> list[dict[str, Any]]:
    """Write the images of prompts as PNG files, but for those that the folder's index has already.

    What the index lacks is made in batches over all of it, of which a finished one is not made
    again, and only then recorded: the same batches give the same bits, whether or not the run was
    interrupted. Images that are not as they were written are told of and made again.

    Args:
        base: Folder of the base model.
        network: Folder of a trained network that takes the place of the base model's, or None.
        backbone: Kind of the model.
        prompts: None of them twice.
        settings: How images are made, and how many of each prompt.
        folder: Where they go; it may hold others that were made alike, and keeps them.
        report: Told the number of images that are done.
        first_index: Index of the first image of each prompt.
        prefix: What stands before every prompt. Noise, names and index go by the prompt alone.

    Returns:
        Their rows of the index.
    """
    indices = range(first_index, first_index + settings.images_per_prompt)
    keys = [(prompt, k) for prompt in prompts for k in indices]
    hashes, batches = look(folder, keys, settings.batch_size)
    seals, wanted, pipeline = Seals(folder / SEALS), len(hashes), None
    made = {key: seals.sha256(folder / image_name(*key)) for part in batches for key in part}
    _tell_of_others(folder, made)
    if hashes:
        report(wanted)
    for part in batches:
        if any(made[key] is None for key in part):
            pipeline = pipeline or load_pipeline(
                base, network, settings.sampler, backbone, settings.dtype, settings.device
            )
            images = draw(pipeline, [prefix + prompt for prompt, _ in part], part, settings)
            for key, image in zip(part, images, strict=True):
                made[key] = add_image(seals, key, image)
        wanted += len([key for key in part if key not in hashes])
        report(min(wanted, len(keys)))
    hashes |= {key: digest for key, digest in made.items() if digest is not None}
    return extend_index(folder, {key: hashes[key] for key in keys}, batches)


def _tell_of_others(folder: Path, made: Mapping[Key, str | None]) -> None:
    """Say that images are in the way which are not what was drawn there."""
    others = [key for key, digest in made.items() if digest is None]
    names = [name for name in (image_name(*key) for key in others) if (folder / name).exists()]
    if names:
        tell(
            f"{folder}: {len(names)} images are not what was written there (their sha256 differ), "
            f"the first of them {names[0]}: they are made again"
        )


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system cannot, a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
