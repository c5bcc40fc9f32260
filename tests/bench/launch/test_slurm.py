"""Stages as jobs of a real SLURM, which is disturbed as clusters are."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.experiment.prepare import prepare
from bench.launch import sbatch
from bench.launch.slurm import SlurmJobs
from bench.spec.launch import Slurm
from bench.spec.model import parse_spec
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.errors import UserError
from trainers.record import CHECKPOINT

RESULTS = ("scores.parquet", "protocol.json", "table.md", "table.csv", "table.json")
PATIENCE = 600
"""Seconds until something is taken to hang; a busy machine may be slow."""
STEPS = 120


def small(raw: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One arm, one seed, few images: the fewest jobs that make a table."""
    raw["components"], raw["seeds"], raw["prompt_limit"] = {}, [0], 3
    raw["statistics"] = {"control_pairs": 2}
    raw["train"]["steps"] = STEPS
    raw["training"] = {"checkpoint_every": 5}
    return raw | changes


@pytest.fixture(scope="module")
def spec(
    tiny_experiment: Callable[[], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("spec") / "a spec; 'quoted' $(touch hostile).yaml"
    path.write_text(yaml.safe_dump(small(tiny_experiment(), title="$(touch hostile) `id`")))
    return path


def command(spec: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "bench", "ablate", str(spec), "--out", str(out), *more]


def run(spec: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(spec, out, *more), capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def files(out: Path) -> dict[str, bytes]:
    return {name: (out / "tiny" / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def undisturbed(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Results of this machine alone."""
    out = tmp_path_factory.mktemp("local")
    done = run(spec, out)
    assert done.returncode == 0, done.stderr
    return files(out)


class Disturbed:
    """A run on the cluster, whose jobs are looked up in its store."""

    def __init__(self, cluster: Any, spec: Path, out: Path) -> None:
        self.cluster = cluster
        self.store = Store(out / "store")
        stages = prepare(parse_spec(yaml.safe_load(spec.read_text()), "test")).stages()
        self.train = next(stage for stage in stages if isinstance(stage, TrainStage))
        self.checkpoint = self.train.output(self.store) / CHECKPOINT

    @property
    def job(self) -> str:
        record = self.store.root / "jobs" / f"{self.train.id[:16]}.json"
        return str(json.loads(record.read_text())["job"])

    def known(self) -> bool:
        return (self.store.root / "jobs" / f"{self.train.id[:16]}.json").is_file()

    def training(self) -> bool:
        """Whether the run is being trained, and has a checkpoint that is newer than the last."""
        stamp = self.checkpoint.stat().st_mtime_ns if self.checkpoint.exists() else 0
        if stamp > self.seen and self.state() == "RUNNING":
            self.seen = stamp
            return True
        return self.train.done(self.store) is not None

    seen = 0

    def goes_on(self) -> bool:
        """As ``training``, of a job that SLURM lets wait two minutes when it is begun again."""
        self.cluster.says("scontrol", "update", f"jobid={self.job}", "starttime=now")
        return self.training()

    def state(self) -> str:
        return str(self.cluster.says("squeue", "-h", "-j", self.job, "-o", "%T")).strip()

    def node(self) -> str:
        return str(self.cluster.says("squeue", "-h", "-j", self.job, "-o", "%N")).strip()


@pytest.fixture(scope="module")
def until() -> Callable[..., bool]:
    import time

    def wait(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.1)
        return bool(condition())

    return wait


@pytest.fixture(scope="module")
def disturbed(
    cluster: Any, spec: Path, until: Callable[..., bool], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, bool], str]]:
    """Whatever may happen to a run has happened to one; what is known of each event."""
    out = tmp_path_factory.mktemp("out; 'quoted' %j $(touch hostile)")
    seen: dict[str, bool] = {}
    with subprocess.Popen(command(spec, out, "--launch", "slurm")) as parent:
        found = Disturbed(cluster, spec, out)
        assert until(found.known)
        assert until(found.training)
        parent.send_signal(signal.SIGKILL)  # The login node goes down.
    seen["alone"] = until(found.training)

    cluster.says("scontrol", "requeue", found.job)  # As preemption does it.
    seen["preempted"] = until(found.goes_on)
    cluster.says("scancel", "--batch", "--signal=USR1", found.job)  # As the time limit does it.
    seen["left early"] = until(lambda: "left early" in log(found))
    seen["came back"] = until(found.goes_on)

    cluster.stop("slurmctld", signal.SIGKILL)
    cluster.start_controller()
    assert until(lambda: "is UP" in cluster.says("scontrol", "ping"), 60)
    seen["controller"] = until(found.training)

    node = found.node() or "one"
    cluster.stop(node, signal.SIGKILL)
    cluster.says("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    seen["node lost"] = until(found.goes_on)
    cluster.start_node(node)
    cluster.says("scontrol", "update", f"nodename={node}", "state=resume")

    other = {"one": "two", "two": "one"}[node]
    cluster.says("scontrol", "update", f"nodename={other}", "state=drain", "reason=test")
    done = run(spec, out, "--launch", "slurm")
    cluster.says("scontrol", "update", f"nodename={other}", "state=resume")
    assert done.returncode == 0, done.stderr
    yield out, seen, done.stderr


def log(found: Disturbed) -> str:
    path = found.store.root / "jobs" / f"{found.job}.log"
    return path.read_text() if path.is_file() else ""


def test_a_disturbed_run_ends_in_the_bytes_of_one_that_was_not(
    disturbed: tuple[Path, dict[str, bool], str], undisturbed: Mapping[str, bytes]
) -> None:
    out, seen, _ = disturbed
    assert all(seen.values()), seen
    assert files(out) == undisturbed


def test_the_same_command_waits_for_what_is_in_the_queue(
    disturbed: tuple[Path, dict[str, bool], str],
) -> None:
    assert re.search(r"\d+ stages are in SLURM's queue already", disturbed[2])


def test_hostile_names_are_names(disturbed: tuple[Path, dict[str, bool], str]) -> None:
    out, _, _ = disturbed
    places = {out, out.parent, Path.cwd(), out / "store", out / "store" / "jobs"}
    assert not [place for place in places if (place / "hostile").exists()]


def test_nothing_is_pickled(disturbed: tuple[Path, dict[str, bool], str]) -> None:
    jobs = [p for name in ("jobs", "stages") for p in (disturbed[0] / "store" / name).iterdir()]
    assert {path.suffix for path in jobs if path.name != ".lock"} <= {".json", ".log", ".sh"}


def test_what_a_spec_asks_for_is_what_a_job_is_given(
    cluster: Any, tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    settings = Slurm.model_validate(
        {"all": {"time": "01:00:00"}, "encode": {"cpus": 2, "memory": "100M"}}
    )
    found = prepare(parse_spec(small(tiny_experiment()), "test")).stages()
    train = next(stage for stage in found if isinstance(stage, TrainStage))
    stages = [train.encode, train]
    executor = SlurmJobs(Store(tmp_path), settings)
    try:
        executor.expect(stages)
        record = tmp_path / "jobs" / f"{stages[0].id[:16]}.json"
        job = json.loads(record.read_text())["job"]
        told = cluster.says("scontrol", "show", "job", job)
        assert "TimeLimit=01:00:00" in told
        assert re.search(r"NumCPUs=2\b", told)
        assert "MinMemoryNode=100M" in told
        after = json.loads((tmp_path / "jobs" / f"{stages[1].id[:16]}.json").read_text())["job"]
        assert f"Dependency=afterok:{job}" in cluster.says("scontrol", "show", "job", after)
    finally:
        cluster.says("scancel", "--user=root")


def test_a_failure_names_the_job_and_its_log(
    cluster: Any, tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    raw = small(tiny_experiment(), training={"device": "cuda:99"})
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(raw))
    done = run(spec, tmp_path, "--launch", "slurm")
    assert done.returncode == 2, done.stderr
    said = re.search(r"failed: training DPO seed 0: job (\d+) of SLURM ended FAILED", done.stderr)
    assert said
    log = tmp_path / "store" / "jobs" / f"{said[1]}.log"
    assert f"(log: {log})" in done.stderr
    assert "'cuda:99' cannot be used here" in log.read_text()
    assert "oracle of DPO seed 0: not run, because" in done.stderr


def test_a_job_that_slurm_refuses(
    cluster: Any, tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    stages = prepare(parse_spec(small(tiny_experiment()), "test")).stages()[:1]
    settings = Slurm.model_validate({"all": {"partition": "none-such"}})
    with pytest.raises(UserError, match=r"SLURM refused a job: .*partition.*: correct launch"):
        SlurmJobs(Store(tmp_path), settings).expect(stages)


def test_without_slurm_it_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--launch slurm calls squeue, which cannot be run here"):
        SlurmJobs(Store(tmp_path), Slurm())


def test_a_script_quotes_what_it_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is run by a shell without SLURM, with a recorder in the place of Python."""
    place = tmp_path / "a $(touch hostile) 'b' \"c\" `touch hostile`\n; touch hostile #"
    place.mkdir()
    recorder = place / "python"
    recorder.write_text('#!/bin/sh\nfor each in "$@"; do printf "<%s>" "$each"; done\n')
    recorder.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(recorder))
    text = sbatch.script(place / "store", ["a" * 16, "b; touch hostile"])
    for task, identity in enumerate(["a" * 16, "b; touch hostile"]):
        done = subprocess.run(
            ["sh"], input=text, capture_output=True, text=True, check=True, cwd=tmp_path,
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task)},
        )  # fmt: skip
        expected = ("-m", "bench", "stage", identity, "--store", str(place / "store"))
        assert done.stdout == "".join(f"<{part}>" for part in expected)
    assert not list(tmp_path.rglob("hostile"))


def test_no_secret_of_the_environment_goes_to_slurm() -> None:
    assert not [name for name in sbatch.EXPORTED if "TOKEN" in name or "KEY" in name]
