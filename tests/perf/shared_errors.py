"""A matrix of four runs with a frozen reference: its errors computed by each, or once for all.

    python tests/perf/shared_errors.py [--rounds 3] [--steps 20]

DPO, with a weaker beta and with a higher rate, and IPO, on the miniature, 32 pairs a step. Every
stage runs in a process of its own; the two ways take turns. Runs must leave the same bytes.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

from forked import Taken, ratio, taken

from bench.experiment.prepare import Experiment, prepare
from bench.experiment.run import missing_stages
from bench.spec.model import load_spec
from bench.stages.base import Stage
from bench.stages.store import Store
from bench.terminal import silence_libraries

CONTROLS = {
    "weak": {"of": "DPO", "set": {"objective.beta": 60}},
    "fast": {"of": "DPO", "set": {"optimizer.lr": 2.5e-4}},
    "IPO": {"of": "DPO", "set": {"objective": {"name": "ipo", "beta": 300}}},
}
WAYS = {
    "each its own": (CONTROLS, False),
    "once for all": (CONTROLS, True),
    "one alone, off": ({}, False),
    "one alone, on": ({}, True),
}


def experiment(controls: dict[str, object], share: bool, steps: int) -> Experiment:
    """One seed of it, with 320 of the pairs."""
    changes = {
        "controls": controls, "components": {}, "seeds": [0], "train.steps": steps,
        "train.data": {"subset": 320}, "training": {"share_reference": share},
        "rewards": ["oracle"],
    }  # fmt: skip
    return prepare(load_spec("mini", changes=changes))


def run(stage: Stage, store: Store) -> None:
    """What a worker of ``bench ablate`` does."""
    stage.execute(store, lambda units: None)


def one_round(experiments: dict[str, Experiment], folder: Path) -> dict[str, list[Taken]]:
    """What each stage took of each way: the errors, if they have a stage, then the runs."""
    found: dict[str, list[Taken]] = {name: [] for name in experiments}
    stages: dict[str, list[Stage]] = {}
    stores = {name: Store(folder / name.replace(" ", "-")) for name in experiments}
    for name, made in experiments.items():
        todo = missing_stages(made, stores[name])
        taken(partial(run, todo[0], stores[name]))  # The encodings, alike for all.
        stages[name] = [stage for stage in todo if stage.kind in ("reference", "train")]
    while any(stages.values()):
        for name, left in stages.items():
            if left:
                found[name].append(taken(partial(run, left.pop(0), stores[name])))
    left_behind = [
        {stage.id: status.digest for stage in made.stages()
         if stage.kind == "train" and (status := stage.done(stores[name]))}
        for name, made in experiments.items()
    ]  # fmt: skip
    assert left_behind[0] == left_behind[1], "the bytes differ"
    assert len(left_behind[0]) == 1 + len(CONTROLS)
    assert left_behind[2] == left_behind[3], "the bytes differ"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    silence_libraries()
    experiments = {name: experiment(*way, args.steps) for name, way in WAYS.items()}
    rounds: list[dict[str, list[Taken]]] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(experiments, Path(folder)))
    print(f"{args.steps} steps of 32 pairs, 1 thread, median of {args.rounds} rounds (least, most)")
    print(f"{'errors':16}{'stages':>7}{'cpu s':>8}{'ratio':>7}{'':15}{'MiB of a run':>13}")
    for name, base in zip(WAYS, ("each its own",) * 2 + ("one alone, off",) * 2, strict=True):
        seconds = {way: [sum(t.seconds for t in r[way]) for r in rounds] for way in (name, base)}
        middle, least, most = ratio(seconds[name], seconds[base])
        mib = statistics.median(max(t.mib for t in r[name]) for r in rounds)
        print(f"{name:16}{len(rounds[0][name]):7}{statistics.median(seconds[name]):8.1f}"
              f"{middle:7.2f} ({least:.2f}, {most:.2f}){mib:13.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
