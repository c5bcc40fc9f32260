"""Stages as tasks of a Ray cluster of two nodes, one of which dies in the middle."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.experiment.prepare import prepare
from bench.launch.local import Local
from bench.launch.ray import RayTasks
from bench.launch.run import run_stages
from bench.spec.launch import Ray
from bench.spec.model import parse_spec
from bench.stages.base import Stage
from bench.stages.encode import EncodeStage
from bench.stages.store import LOCK, Store
from bench.stages.train import TrainStage
from trainers.errors import UserError
from trainers.record import CHECKPOINT

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'dpo-bench[ray]'")


PATIENCE = 900
"""Seconds until something is taken to hang; a busy machine may be slow."""


def raylet(node: Any) -> int:
    """The process that starts the workers of a node."""
    return int(node.all_processes["raylet"][0].process.pid)


class Silent:
    """A display that remembers only what failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def begin(self, stage: Stage) -> None: ...

    def advance(self, identity: str, units: int) -> None: ...

    def end(self, stage: Stage, error: str | None) -> None:
        if error is not None:
            self.failed.append(error)


@pytest.fixture(scope="module")
def stages(tiny_experiment: Callable[[], dict[str, Any]]) -> list[Stage]:
    """One run, from its pairs to its scores."""
    raw = tiny_experiment()
    raw["components"], raw["seeds"], raw["prompt_limit"] = {}, [0], 3
    raw["train"]["steps"] = 40
    raw["training"] = {"checkpoint_every": 2}
    found = prepare(parse_spec(raw, "test")).stages()
    train = next(stage for stage in found if isinstance(stage, TrainStage))
    images = next(stage for stage in found if train in stage.needs)
    scores = next(stage for stage in found if images in stage.needs)
    return [train.encode, train, images, scores]


@pytest.fixture(scope="module")
def undisturbed(stages: list[Stage], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Digests of what this machine alone makes of them."""
    store = Store(tmp_path_factory.mktemp("local"))
    shown = Silent()
    run_stages(stages, store, Local(store, 1), shown)
    assert not shown.failed
    return digests(stages, store)


def digests(stages: list[Stage], store: Store) -> list[str]:
    found = [stage.done(Store(store.root)) for stage in stages]
    return [status.digest for status in found if status is not None]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made
    finally:
        made.shutdown()


def test_a_node_that_dies_loses_nothing(
    cluster: Any, stages: list[Stage], undisturbed: list[str], tmp_path: Path
) -> None:
    train = stages[1]
    store, shown = Store(tmp_path / "a store; 'quoted'"), Silent()
    nodes = {raylet(node): node for node in (cluster.add_node(num_cpus=1) for _ in range(2))}
    killed = threading.Event()

    def kill() -> None:
        """Kill the node on which the run is trained, once there is a checkpoint."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not killed.is_set():
            time.sleep(0.02)
            if (train.output(store) / CHECKPOINT).exists():
                said = (train.output(store) / LOCK).read_text().split()  # process NUMBER on ...
                cluster.remove_node(nodes[psutil.Process(int(said[1])).ppid()], False)
                killed.set()

    other = threading.Thread(target=kill, daemon=True)
    other.start()
    executor = RayTasks(store, Ray(address=cluster.address))
    outcome = run_stages(stages, store, executor, shown)
    assert killed.wait(5)
    assert outcome.failed == {}
    assert digests(stages, store) == undisturbed
    assert {path.suffix for path in (store.root / "stages").iterdir()} == {".json"}


def test_what_no_node_has_is_refused_before_anything_runs(
    cluster: Any, stages: list[Stage], tmp_path: Path
) -> None:
    settings = Ray.model_validate({"address": cluster.address, "train": {"gpus": 1}})
    with pytest.raises(UserError, match=r"launch\.ray\.train: asks for 1 of GPU, and the cluster"):
        run_stages(stages, Store(tmp_path), RayTasks(Store(tmp_path), settings), Silent())
    assert not stages[0].output(Store(tmp_path)).exists()


def test_a_failure_is_told_as_on_this_machine(
    cluster: Any, tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    raw = tiny_experiment() | {"encoding": {"device": "cuda:99"}}
    stages = prepare(parse_spec(raw, "test")).stages()
    stage = next(stage for stage in stages if isinstance(stage, EncodeStage))
    shown, store = Silent(), Store(tmp_path)
    executor = RayTasks(store, Ray(address=cluster.address))
    outcome = run_stages([stage], store, executor, shown)
    assert list(outcome.failed) == [stage.id]
    assert "UserError: encodings: 'cuda:99' cannot be used here" in shown.failed[0]


def test_no_cluster_where_one_is_said_to_be(tmp_path: Path) -> None:
    executor = RayTasks(Store(tmp_path), Ray(address="127.0.0.1:1"))
    with pytest.raises(UserError, match=r"launch\.ray\.address: no cluster at") as caught:
        executor.__enter__()
    assert "\n" not in str(caught.value)


def test_nothing_of_ray_is_loaded_unless_it_is_asked_for() -> None:
    code = "import sys, bench.experiment.run, bench.launch.ray; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
