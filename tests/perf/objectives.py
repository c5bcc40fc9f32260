"""Time and memory of a step under every objective, relative to DPO's.

    python tests/perf/objectives.py [--rounds 3] [--steps 2]

The arms of `mini-objectives`, 32 pairs a step. Each measurement has a process of its own; in every
round all of them take turns, and ratios are to DPO's of the same round. What the reference adds at
the steps at which A acts is timed apart, and spread over all.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from forked import Taken, ratio, taken

from bench.experiment.prepare import prepare
from bench.spec.model import load_spec
from bench.stages.encode import EncodeStage, open_pairs
from bench.stages.store import Store
from bench.stages.train import TrainStage
from bench.terminal import silence_libraries
from trainers.backbones import BACKBONES
from trainers.core import Trainer
from trainers.machine.batches import split_batch
from trainers.reference_errors import known_positions

STORED = "DPO, errors stored"
WITH = ("DPO+A", "DPO+B", "DPO+A+B")


def arms() -> dict[str, TrainStage]:
    """One run of each objective, and of DPO with the components."""
    changes = {"seeds": [0], "train.data": {"subset": 320}, "rewards": ["oracle"]}
    made = prepare(load_spec("mini-objectives", changes=changes))
    runs = {entry.arm: entry.images.train for entry in made.sets if entry.images.train}
    alone = [name for name in made.spec.objectives if name != "DPO"]
    return {name: runs[name] for name in ("DPO", *alone, *WITH)}


def step(stage: TrainStage, store: Store, steps: int, stored: bool) -> float:
    """Processor seconds of a step, the first left out: the optimiser's state, oneDNN's plans."""
    config = stage.config
    backbone = BACKBONES.get(config.backbone)(stage.base)
    data = open_pairs(stage.encode.stored(store), backbone, config.data)
    known = torch.zeros(config.objective.images, known_positions(config)) if stored else None
    trainer = Trainer(config, backbone, data, known=known)
    trainer.advance()
    plain = _seconds(trainer, steps) / steps
    every = config.reference.acts_every
    if not config.reference.measured_images(config.batch_size):
        return plain
    trainer.step = every - 1
    return plain + (_seconds(trainer, 1) - plain) / every


def _seconds(trainer: Trainer, steps: int) -> float:
    began = time.process_time()
    for _ in range(steps):
        trainer.advance()
    return time.process_time() - began


def passes(stage: TrainStage, stored: bool) -> int:
    """Passes through a network that a row takes, by which a plan counts."""
    config = stage.config
    split = split_batch(config.batch_size, config.accumulation, 1)
    return config.passes(split) - stored * config.reference_passes(split)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    silence_libraries()
    runs = arms()
    runs[STORED] = runs["DPO"]
    found: dict[str, list[Taken]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for stage in {run.encode.id: run.encode for run in runs.values()}.values():
            taken(partial(_encode, stage, store))
        for _ in range(args.rounds):
            for name, run in runs.items():
                found[name].append(taken(partial(step, run, store, args.steps, name == STORED)))
    print(f"32 rows a step, 1 thread, median of {args.rounds} rounds (least, most)\n")
    print("| objective | passes | of DPO's 8 | s/step | ratio | MiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        several, count = found[name], passes(run, name == STORED)
        middle, least, most = ratio([t.seconds for t in several], [t.seconds for t in found["DPO"]])
        memory, _, _ = ratio([t.mib for t in several], [t.mib for t in found["DPO"]])
        print(
            f"| {name} | {count} | {count / 8:.2f} "
            f"| {statistics.median(t.seconds for t in several):.2f} "
            f"| {middle:.2f} ({least:.2f}, {most:.2f}) "
            f"| {statistics.median(t.mib for t in several):.0f} | {memory:.2f} |"
        )


def _encode(stage: EncodeStage, store: Store) -> None:
    stage.execute(store, lambda units: None)


if __name__ == "__main__":
    main()
