"""The stage that computes errors of the pretrained network for the runs that share them.

Those of one kind lie together in a pool of the store, whatever runs they are for, in pieces that
follow each other from position 0: a longer run adds to those of a shorter one. The output of a
stage is a copy of the first of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.spec.launch import Work
from bench.spec.model import Cost, Training
from bench.stages.base import Report, Stage
from bench.stages.encode import EncodeStage, StoredPairs, open_pairs, verify_model
from bench.stages.store import Store, locked
from bench.terminal import silence_libraries
from trainers.backbones import BACKBONES
from trainers.config import TrainConfig
from trainers.files import (
    canonical_json,
    clear,
    clear_parts,
    sha256_text,
    tell,
    write_atomically,
)
from trainers.machine.batches import split_batch
from trainers.machine.processes import joined, launched
from trainers.machine.spawn import send, spawn
from trainers.reference_errors import reference_errors, shared_key
from trainers.sealed import SEALS, Seals

ERRORS = "errors.safetensors"
NAME = "errors"
"""Of each image at the first positions of the stream, ``float32[images, positions]``."""


@dataclass(frozen=True)
class ReferenceStage(Stage):
    """Errors of the pretrained network at the first positions of a seed's stream."""

    kind: ClassVar[str] = "reference"
    work: ClassVar[Work] = "train"
    order: ClassVar[int] = 1
    config: TrainConfig
    """Any of the runs that share them."""
    base: Path
    encode: EncodeStage
    training: Training
    """Execution; how a batch is cut and the kind of device are in the identity, too."""
    positions: int

    @property
    def shared(self) -> dict[str, Any]:
        """All that decides the errors of a position."""
        config, training = self.config, self.training
        split = split_batch(config.batch_size, config.accumulation, training.processes)
        return shared_key(config, split, training.device)

    def key(self) -> dict[str, Any]:
        """See the base class."""
        return {"shared": self.shared, "positions": self.positions}

    @property
    def units(self) -> int:
        """Positions."""
        return self.positions

    @property
    def device(self) -> str:
        """See the base class."""
        return self.training.device

    def expected_seconds(self, cost: Cost) -> float:
        """One forward pass of each image."""
        return self.units * cost.network_pass * self.config.objective.images

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.encode,)

    def verify_inputs(self) -> None:
        """See the base class."""
        verify_model(self.config.backbone, self.base, self.config.base_sha256)
        self.encode.verify_inputs()

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        encoded = self.encode.done(store)
        assert encoded is not None, "pairs are encoded before they are looked at"
        kind = sha256_text(canonical_json(self.shared))
        pool = store.pool(self.kind) / encoded.digest[:16] / kind[:16]
        with locked(pool):  # Against an experiment that needs more of them, or fewer.
            clear_parts(pool)
            pieces = _take(pool)
            if (first := _length(pieces)) < self.positions:
                run = (self.config, self.base, self.encode.stored(store), self.training)
                extend(*run, pool, first, self.positions, report)
                pieces = _take(pool)
        errors = torch.cat(pieces, dim=1)[:, : self.positions]
        write_atomically(folder / ERRORS, partial(_save, errors))


def read_errors(folder: Path) -> Tensor:
    """The errors that a stage left in its folder, ``float32[images, positions]``."""
    return load_file(folder / ERRORS)[NAME]


def extend(
    config: TrainConfig,
    base: Path,
    pairs: StoredPairs,
    training: Training,
    pool: Path,
    first: int,
    last: int,
    report: Report,
) -> None:
    """Add errors to the pieces in ``pool``, from position ``first`` to ``last`` or a little beyond.

    In as many processes as train a run, and a piece for as many steps as lie between checkpoints.
    """
    if training.processes > 1 and launched() == 1:
        run = (config, base, pairs, training, pool, first, last)
        spawn(training.processes, _extend_in_group, *run, on_message=report)
        return
    seals, waiting = Seals(pool / SEALS), list[Tensor]()
    enough = training.checkpoint_every * config.batch_size
    with joined(training.device, config.precision) as processes:
        backbone = BACKBONES.get(config.backbone)(base, processes.device)
        data = open_pairs(pairs, backbone, config.data)
        for errors in reference_errors(config, backbone, data, processes, first, last):
            if not processes.main:
                continue
            waiting.append(errors)
            done = first + _length(waiting)
            if done - first >= enough or done >= last:
                piece = torch.cat(waiting, dim=1)
                seals.write(pool / _name(first), partial(_save, piece))
                first, waiting = done, []
            report(min(done, last))


def _extend_in_group(
    *run: *tuple[TrainConfig, Path, StoredPairs, Training, Path, int, int],
) -> None:
    """Work beside others, and tell the process that started all of them."""
    silence_libraries()
    extend(*run, send)


def _name(first: int) -> str:
    """Of the piece that begins at a position."""
    return f"{first:012d}.safetensors"


def _save(errors: Tensor, path: Path) -> None:
    save_file({NAME: errors.contiguous()}, str(path))


def _take(pool: Path) -> list[Tensor]:
    """The pieces from position 0 on, as far as they are there as they were written."""
    seals, found = Seals(pool / SEALS), list[Tensor]()
    while (path := pool / _name(_length(found))).exists():
        if seals.sha256(path) is None:
            tell(f"{path} is not what was written there (its sha256 differs): it is made again")
            clear(path)
            break
        found.append(load_file(path)[NAME])
    return found


def _length(pieces: Sequence[Tensor]) -> int:
    """Positions of several pieces."""
    return sum(piece.shape[1] for piece in pieces)
