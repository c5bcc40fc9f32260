"""The stage that trains a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from bench.spec.launch import Work
from bench.spec.model import Cost, Training
from bench.stages.base import Report, Stage
from bench.stages.encode import EncodeStage, StoredPairs, open_pairs, verify_model
from bench.stages.prefix import keep_end, take_up
from bench.stages.reference import ReferenceStage, read_errors
from bench.stages.store import Store
from bench.terminal import silence_libraries
from trainers.backbones import BACKBONES
from trainers.config import TrainConfig
from trainers.core import OnStep, Trainer
from trainers.machine.batches import split_batch
from trainers.machine.leaving import leave_if_asked
from trainers.machine.processes import joined, launched
from trainers.machine.spawn import send, spawn
from trainers.metrics import StepMetrics
from trainers.record import CHECKPOINT, is_finished
from trainers.reference_errors import known_positions
from trainers.sealed import drop
from trainers.tracking import check_trackers, tracked


@dataclass(frozen=True)
class TrainStage(Stage):
    """One training run."""

    kind: ClassVar[str] = "train"
    work: ClassVar[Work] = "train"
    order: ClassVar[int] = 2
    resumes: ClassVar[bool] = True
    config: TrainConfig
    base: Path
    encode: EncodeStage
    training: Training
    """Execution only."""
    errors: ReferenceStage | None = None
    """Execution only: where errors of the pretrained network are taken from, if not computed."""

    def __post_init__(self) -> None:
        """Refuse trackers that are not there now, rather than after the encoding.

        Raises:
            UserError: If so.
        """
        check_trackers(self.training.log_with)

    def key(self) -> dict[str, Any]:
        """The run's configuration, defaults included."""
        return self.config.model_dump(mode="json")

    @property
    def units(self) -> int:
        """Optimiser steps."""
        return self.config.steps

    @property
    def device(self) -> str:
        """See the base class."""
        return self.training.device

    def expected_seconds(self, cost: Cost) -> float:
        """Pairs of every step, by the passes that each takes."""
        config = self.config
        split = split_batch(config.batch_size, config.accumulation, self.training.processes)
        passes = self.units * config.batch_size * config.passes(split)
        if self.errors is not None:
            known = min(self.errors.positions, known_positions(config))
            passes -= known * config.reference_passes(split)
        return passes * cost.network_pass

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.encode,)

    @property
    def follows(self) -> tuple[Stage, ...]:
        """See the base class."""
        return self.needs if self.errors is None else (*self.needs, self.errors)

    def verify_inputs(self) -> None:
        """See the base class; lost encodings are made again, from the same pairs."""
        verify_model(self.config.backbone, self.base, self.config.base_sha256)
        self.encode.verify_inputs()

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        pairs = self.encode.stored(store)
        encoded = self.encode.done(store)
        assert encoded is not None, "pairs are encoded before they are trained on"
        pool = store.pool(self.kind) / encoded.digest[:16]  # Made anew, it may round otherwise.
        take_up(pool, self.config, folder)
        known = None
        if self.errors is not None:
            assert self.errors.done(store) is not None, f"{self.errors.label} come first"
            known = self.errors.output(store)
        train(
            self.config,
            self.base,
            pairs,
            self.training,
            folder,
            lambda step, _: report(step),
            known,
        )
        if self.training.keep_checkpoint and (folder / CHECKPOINT).exists():
            keep_end(pool, self.config, folder)


def train(
    config: TrainConfig,
    base: Path,
    pairs: StoredPairs,
    training: Training,
    folder: Path,
    on_step: OnStep,
    known: Path | None = None,
) -> None:
    """Train into ``folder``, from where an interrupted attempt stopped; nothing if it is done.

    A process that a launcher has started, such as ``accelerate launch``, trains together with the
    others of that launch; else processes are started if ``training`` asks for several.

    Args:
        config: The run.
        base: Folder of the pretrained model.
        pairs: What it learns from, encoded.
        training: Device, processes, checkpoints; one that is to be kept stays in ``folder``.
        folder: Where network, log and checkpoints go.
        on_step: Called after every step; of several processes, with what the first one saw.
        known: Folder of errors of the pretrained network, of which none is computed again.

    Raises:
        UserError: If a process died, a setting does not fit, a tracker fails, or the folder holds
            another run.
    """
    if is_finished(folder, config):
        if not training.keep_checkpoint:
            drop(folder / CHECKPOINT)
        return

    def heard(step: tuple[int, StepMetrics]) -> None:
        on_step(*step)
        leave_if_asked()

    if training.processes > 1 and launched() == 1:
        spawn(
            training.processes, _train_in_group, known, config, base, pairs, training, folder,
            on_message=heard,
        )  # fmt: skip
        return
    with joined(training.device, config.precision) as processes:
        backbone = BACKBONES.get(config.backbone)(base, processes.device)
        data = open_pairs(pairs, backbone, config.data)
        errors = None if known is None else read_errors(known)
        trainer = Trainer(config, backbone, data, processes, errors)
        trackers = training.log_with if processes.main else ()
        with tracked(trackers, config, Path(training.log_to), on_step) as told:
            trainer.run(folder, told, training.checkpoint_every, training.keep_checkpoint)


def _train_in_group(
    known: Path | None, *run: *tuple[TrainConfig, Path, StoredPairs, Training, Path]
) -> None:
    """Train beside others, and tell the process that started all of them."""
    silence_libraries()
    train(*run, lambda *step: send(step), known)
