"""The stages of an experiment, each a function of its inputs into a folder of its own."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from bench.images.samplers import fitting
from bench.spec.model import Encoding, Generate, Scoring, Training
from bench.stages.store import Status, Store
from trainers.config import TrainConfig
from trainers.data.settings import DataSettings
from trainers.data.sources import Source
from trainers.files import canonical_json, sha256_text

Report = Callable[[int], None]
"""Told how many units of a stage are done."""


@dataclass(frozen=True)
class Stage(ABC):
    """A unit of work with an identity. It can be sent to another process."""

    kind: ClassVar[str]
    label: str

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """All that decides the outputs; paths, names and workers do not."""

    @property
    @abstractmethod
    def units(self) -> int:
        """How many units of work there are: steps, images, scores."""

    @abstractmethod
    def run(self, folder: Path, store: Store, report: Report) -> None:
        """Fill ``folder``; what an interrupted attempt left there is taken up or written over."""

    @property
    def needs(self) -> tuple["Stage", ...]:
        """Stages whose outputs this one reads."""
        return ()

    @cached_property
    def id(self) -> str:
        """sha256 of kind, key and the identities of what it needs."""
        needs = [stage.id for stage in self.needs]
        return sha256_text(canonical_json([self.kind, self.key(), needs]))

    def done(self, store: Store) -> Status | None:
        """The record of this stage if it, and all it was made from, is as recorded.

        Raises:
            UserError: If the store is damaged.
        """
        status = store.status(self.kind, self.id)
        if status is None:
            return None
        for stage in self.needs:
            source = stage.done(store)
            # The source may have been cleared away to save space; if it is there it must match.
            if source is not None and source.digest != status.inputs[stage.id]:
                return None
        return status

    def execute(self, store: Store, report: Report) -> Status:
        """Run the stage unless it is done, and record it."""
        with store.lock(self.kind, self.id) as folder:
            if (status := self.done(store)) is not None:
                return status
            inputs: dict[str, str] = {}
            for stage in self.needs:
                source = stage.done(store)
                assert source is not None, f"{stage.label} must run before {self.label}"
                inputs[stage.id] = source.digest
            store.claim(self.kind, self.id, inputs)
            began = time.monotonic()
            self.run(folder, store, report)
            return store.record(self.kind, self.id, inputs, time.monotonic() - began)

    def output(self, store: Store) -> Path:
        """The folder of the outputs."""
        return store.folder(self.kind, self.id)


@dataclass(frozen=True)
class EncodeStage(Stage):
    """The pairs whose images can be read, as an index of their encodings.

    The encodings themselves go to a cache that all experiments of the store share, by content.
    They can be made again from the source, so they are no outputs: without them, or with them
    deleted, the stage is as done as before.
    """

    kind: ClassVar[str] = "latents"
    backbone: str
    base: Path
    base_sha256: str
    source: Source
    """Execution only: what it holds is in the hash."""
    data_sha256: str
    settings: DataSettings
    pairs: int
    encoding: Encoding

    def key(self) -> dict[str, Any]:
        """See the base class. Settings that change no encoding do not enter."""
        return {
            "backbone": self.backbone,
            "base": self.base_sha256,
            "data": self.data_sha256,
            "settings": self.settings.encoding_key(),
        }

    @property
    def units(self) -> int:
        """Images."""
        return 2 * self.pairs

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        from bench.stages.encode import encode

        encode(self, folder, store, report)


@dataclass(frozen=True)
class TrainStage(Stage):
    """One training run."""

    kind: ClassVar[str] = "train"
    config: TrainConfig
    base: Path
    latents: EncodeStage
    training: Training
    """Execution only."""

    def key(self) -> dict[str, Any]:
        """The run's configuration, defaults included."""
        return self.config.model_dump(mode="json")

    @property
    def units(self) -> int:
        """Optimiser steps."""
        return self.config.steps

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.latents,)

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        from bench.stages.train import train

        train(self, folder, store, lambda step, _: report(step))


@dataclass(frozen=True)
class GenerateStage(Stage):
    """The images of one model for a prompt set."""

    kind: ClassVar[str] = "images"
    settings: Generate
    first_index: int
    """Index of the first image of each prompt: other indices are other noises."""
    prompts: tuple[tuple[str, str], ...]
    backbone: str
    base: Path
    base_sha256: str
    train: TrainStage | None

    def __post_init__(self) -> None:
        """Refuse a sampler that does not fit now, rather than after the training.

        Raises:
            UserError: If the backbone or the sampler is unknown, one does not fit the other, or
                the sampler takes no eta and one is set.
        """
        fitting(self.settings.sampler, self.backbone, self.settings.eta)

    def key(self) -> dict[str, Any]:
        """See the base class. Prompt ids are names; they do not enter."""
        return {
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
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.train,) if self.train else ()

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        from bench.images.draw import generate

        network = self.train.output(store) if self.train else None
        generate(self, network, folder, report)


@dataclass(frozen=True)
class ScoreStage(Stage):
    """The scores of one reward for one set of images."""

    kind: ClassVar[str] = "scores"
    reward: str
    signature: str
    images: GenerateStage
    scoring: Scoring
    """Execution only: what it changes about a score is in the signature."""

    def key(self) -> dict[str, Any]:
        """See the base class."""
        return {"signature": self.signature}

    @property
    def units(self) -> int:
        """Scores."""
        return self.images.units

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.images,)

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        from bench.rewards.engine import score_images

        score_images(self, folder, store, report)
