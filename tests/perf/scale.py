"""Graph and store at the size of a cluster, by simulation: nothing is trained, drawn or scored.

    python tests/perf/scale.py [--runs 100 200 400] [--rewards 98] [--images 100] [--planned 1000]

An experiment of ``runs`` training runs with as many rewards has ``runs * (rewards + 2)`` stages and
``runs * rewards * images`` scores. Written into a store are records and scores as stages leave
them; timed is what a command does with them. Time and memory for each stage are to stay the same.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.experiment.collect import collect
from bench.experiment.prepare import Experiment, ImageSet, prepare
from bench.experiment.run import missing_stages
from bench.images.folder import SCORES
from bench.launch.graph import Graph
from bench.rewards.engine import SCHEMA
from bench.spec.model import load_spec
from bench.stages.base import Stage
from bench.stages.score import ScoreStage
from bench.stages.store import Store, seal_record
from trainers.files import canonical_json, sha256_file, sha256_text


def experiment(runs: int, rewards: int, images: int) -> Experiment:
    """The default spec with one arm's settings under so many training seeds and rewards."""
    one = prepare(load_spec("mini", changes={"prompt_limit": images}))
    entry = next(entry for entry in one.sets if entry.images.train is not None)
    assert entry.images.train is not None
    sets: list[ImageSet] = []
    for seed in range(runs):
        config = entry.images.train.config.model_copy(update={"seed": seed})
        train = replace(entry.images.train, config=config)
        drawn = replace(entry.images, train=train)
        scores = tuple(
            replace(entry.scores[0], reward=f"r{number}", signature=f"r{number}", images=drawn)
            for number in range(rewards)
        )
        sets.append(ImageSet("DPO", seed, drawn, scores))
    return replace(one, sets=tuple(sets))


def fill(made: Experiment, store: Store) -> None:
    """Write what stages leave: a record each, and of those that score a table."""
    prompts = [prompt for _, prompt in made.prompts.items]
    n = len(prompts)
    columns: dict[str, list[Any]] = {
        "prompt": prompts, "k": [0] * n, "image_sha256": ["0" * 64] * n, "reward": ["r"] * n,
        "signature": ["r"] * n, "score": [0.5] * n, "file": ["f"] * n,
    }  # fmt: skip
    table, digests = pa.table(columns, schema=SCHEMA), dict[str, str]()
    for stage in made.stages():
        folder = stage.output(store)
        folder.mkdir(parents=True)
        outputs: dict[str, str] = {}
        if isinstance(stage, ScoreStage):
            pq.write_table(table, folder / SCORES)
            outputs[SCORES] = sha256_file(folder / SCORES)
        digests[stage.id] = sha256_text(canonical_json(outputs))
        inputs = {need.id: digests[need.id] for need in stage.needs}
        said = {"id": stage.id, "inputs": inputs, "outputs": outputs, "seconds": 1.0}
        (folder / "status.json").write_text(canonical_json(seal_record(said)))


def drain(stages: Sequence[Stage]) -> None:
    """Have a graph's stages begin and finish, each after those it needs."""
    graph = Graph(stages)
    while not graph.settled:
        stage = graph.begin()
        assert stage is not None
        graph.finish(stage)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, which measure others less than those of the clock do."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="*", default=[100, 200, 400])
    parser.add_argument("--planned", type=int, nargs="*", default=[1000])
    parser.add_argument("--rewards", type=int, default=98)
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    print("| runs | stages | scores | define | plan, empty store | graph | plan, full store "
          "| collect | peak memory |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for runs in given.runs:
        print(row(runs, given.rewards, given.images, filled=True), flush=True)
    for runs in given.planned:
        print(row(runs, given.rewards, given.images, filled=False), flush=True)


def row(runs: int, rewards: int, images: int, filled: bool) -> str:
    """What an experiment of that size takes; with a store that is ``filled``, and without."""
    define, made = timed(lambda: experiment(runs, rewards, images))
    cells = ["-", "-"]
    with tempfile.TemporaryDirectory() as folder:
        empty, todo = timed(lambda: missing_stages(made, Store(Path(folder))))
        graph, _ = timed(lambda: drain(todo))
        if filled:
            store = Store(Path(folder))
            fill(made, store)
            full, left = timed(lambda: missing_stages(made, store))
            assert left == [], len(left)
            took, table = timed(lambda: collect(made, store))
            assert len(table) == runs * rewards * images
            cells = [f"{full:.1f} s", f"{took:.1f} s"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"| {runs} | {len(todo)} | {runs * rewards * images} | {define:.1f} s | {empty:.1f} s "
        f"| {graph:.1f} s | {cells[0]} | {cells[1]} | {peak:.2f} GiB |"
    )


if __name__ == "__main__":
    main()
