"""The whole job as a user runs it: finished, repeated, interrupted, killed, and with a failure.

``DPO_BENCH_TEST_KILLS`` says how often the run is killed (3); more is better before a release.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from bench.assets import pairs_file
from bench.cli import run
from bench.report.folder import stale
from bench.stages.store import Store

KILLS = int(os.environ.get("DPO_BENCH_TEST_KILLS", "3"))
COMMAND = str(Path(sys.executable).with_name("bench"))
PATIENCE = 1800
"""Seconds until a run is taken to hang; a busy machine may be very slow."""
PROMPTS, SEEDS, CONTROL_PAIRS = 6, 2, 3
ARMS = 6
ROWS = PROMPTS * (1 + ARMS * SEEDS + 2 * CONTROL_PAIRS)
RUNS = 5 * SEEDS
"""The arm ``same`` is no run of its own."""
SETS = 1 + RUNS + 2 * CONTROL_PAIRS
STAGES = 1 + RUNS + 2 * SETS
RESULTS = (
    "scores.parquet",
    "steps.parquet",
    "images.parquet",
    "protocol.json",
    "table.md",
    "table.csv",
    "table.json",
)

CHANGES: dict[str, Any] = {
    "controls": {
        # An update that never comes, and a setting that was so already.
        "off": {"of": "DPO", "set": {"reference": {"name": "hard-copy", "tau": 5}}},
        "same": {"of": "DPO", "set": {"objective.beta": 5000}},
    },
    "seeds": list(range(SEEDS)),
    "prompt_limit": PROMPTS,
    "statistics": {"control_pairs": CONTROL_PAIRS},
}
"""What the experiments here change in the tiny one."""


@dataclass(frozen=True)
class Run:
    """A finished command, and the folder that it wrote to."""

    out: Path
    code: int
    stdout: str
    stderr: str

    @property
    def folder(self) -> Path:
        return self.out / "tiny"

    def results(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in RESULTS}

    def stages(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.folder / "manifest.json").read_text())[
            "stages"
        ]
        return rows


def ablate(spec: Path, out: Path, workers: int, *more: str, **environment: str) -> Run:
    """Run the job to its end."""
    arguments = [COMMAND, "ablate", str(spec), "--out", str(out), "--workers", str(workers), *more]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=PATIENCE, env=os.environ | environment
    )
    return Run(out, done.returncode, done.stdout, done.stderr)


def start(spec: Path, out: Path, workers: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start the job in a process group of its own, writing to ``log``.

    As in a terminal, Ctrl-C reaches it, even if the tests themselves run where it is ignored.
    """
    arguments = [COMMAND, "ablate", str(spec), "--out", str(out), "--workers", str(workers)]
    with log.open("ab") as stream:
        return subprocess.Popen(
            arguments,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> bool:
    """Whether a condition comes true while a process runs."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def finished(out: Path) -> int:
    """Number of stages on record."""
    return len(list((out / "store").glob("*/*/status.json")))


def write_spec(folder: Path, spec: Mapping[str, Any]) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(dict(spec), sort_keys=False))
    return path


@pytest.fixture(scope="session")
def spec_file(
    tmp_path_factory: pytest.TempPathFactory, tiny_experiment: Callable[[], dict[str, Any]]
) -> Path:
    """The spec, on the first of the shipped pairs."""
    folder = tmp_path_factory.mktemp("spec")
    pairs = pq.read_table(pairs_file()).slice(0, 48)
    pq.write_table(pairs, folder / "pairs.parquet")
    return write_spec(
        folder, {**tiny_experiment(), **CHANGES, "data": str(folder / "pairs.parquet")}
    )


@pytest.fixture(scope="session")
def undisturbed(spec_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that every other must reproduce."""
    return ablate(spec_file, tmp_path_factory.mktemp("undisturbed"), 2)


def test_the_run_is_complete(undisturbed: Run) -> None:
    assert undisturbed.code == 0, undisturbed.stderr
    assert f"[{STAGES}/{STAGES}]" in undisturbed.stderr
    assert "Traceback" not in undisturbed.stderr
    assert f"written to {undisturbed.folder}" in undisturbed.stderr
    names = {path.name for path in undisturbed.folder.iterdir()}
    assert names == {*RESULTS, "manifest.json", "pictures"}
    assert "DPO+A+B - DPO" in undisturbed.stdout
    assert stale(undisturbed.folder) == []


def test_every_score_is_there_once(undisturbed: Run) -> None:
    table = pq.read_table(undisturbed.folder / "scores.parquet").to_pandas()
    assert len(table) == ROWS
    assert table["score"].notna().all()
    assert table["score"].between(0, 1).all()
    sizes = table.groupby(["arm", "train_seed", "reward"], dropna=False).size()
    assert set(sizes) == {PROMPTS}
    assert len(sizes) == 1 + ARMS * SEEDS + 2 * CONTROL_PAIRS
    assert table["train_seed"].isna().sum() == PROMPTS
    assert table["signature"].nunique() == 1


def test_arms_are_paired_and_control_sets_have_noises_of_their_own(undisturbed: Run) -> None:
    table = pq.read_table(undisturbed.folder / "scores.parquet").to_pandas()
    keys = table.groupby("arm")[["prompt_id", "k"]].apply(lambda g: set(map(tuple, g.to_numpy())))
    assert keys["base"] == keys["DPO"] == keys["DPO+A+B"]
    control = table[table["arm"].str.startswith("A/A")]
    assert control["image_sha256"].nunique() == len(control)
    assert not set(control["image_sha256"]) & set(table[table["arm"] == "base"]["image_sha256"])


def test_the_manifest_says_what_was_run(undisturbed: Run) -> None:
    stages = undisturbed.stages()
    assert len(stages) == STAGES
    assert {stage["state"] for stage in stages} == {"done"}
    store = Store(undisturbed.out / "store")
    for stage in stages:
        status = store.status(stage["kind"], stage["id"])
        assert status is not None
        assert status.digest == stage["digest"]
    manifest = json.loads((undisturbed.folder / "manifest.json").read_text())
    runs = {(r["arm"], r["seed"]): r["run_id"] for r in manifest["runs"]}
    assert len(runs) == ARMS * SEEDS
    assert len(set(runs.values())) == RUNS
    assert runs["same", 0] == runs["DPO", 0]
    assert runs["off", 0] != runs["DPO", 0]


def network(run: Run, arm: str, seed: int) -> str:
    """The hash of a trained network."""
    label = f"training {arm} seed {seed}"
    stage = next(s for s in run.stages() if s["label"] == label)
    status = Store(run.out / "store").status("train", stage["id"])
    assert status is not None
    return status.outputs["unet/diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_component_that_does_nothing_is_the_base_run_bit_for_bit(
    undisturbed: Run, seed: int
) -> None:
    plain = network(undisturbed, "DPO", seed)
    assert network(undisturbed, "off", seed) == plain
    assert network(undisturbed, "DPO+B", seed) != plain
    assert network(undisturbed, "DPO", 1 - seed) != plain
    scores = pq.read_table(undisturbed.folder / "scores.parquet").to_pandas()
    images = {
        arm: scores[(scores["arm"] == arm) & (scores["train_seed"] == seed)]["image_sha256"]
        for arm in ("DPO", "off", "same", "DPO+B")
    }
    assert list(images["off"]) == list(images["same"]) == list(images["DPO"])
    assert list(images["DPO+B"]) != list(images["DPO"])


def test_a_second_run_executes_nothing(undisturbed: Run, spec_file: Path) -> None:
    before = undisturbed.results()
    store = undisturbed.out / "store"
    manifest = (undisturbed.folder / "manifest.json").read_bytes()
    made = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    again = ablate(spec_file, undisturbed.out, 2)
    assert again.code == 0, again.stderr
    assert "[1/" not in again.stderr
    assert again.stdout == undisturbed.stdout
    assert again.results() == before
    assert (undisturbed.folder / "manifest.json").read_bytes() == manifest
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file()} == made


def test_a_plan_after_the_run_finds_everything_cached(
    undisturbed: Run, spec_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ablate", str(spec_file), "--out", str(undisturbed.out), "--plan", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["stages"]) == STAGES
    assert {stage["state"] for stage in data["stages"]} == {"cached"}
    assert data["estimated_seconds"] == 0


def test_the_manifest_is_there_and_of_this_spec_though_nothing_ran(
    undisturbed: Run, spec_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = undisturbed.out / "other" / "manifest.json"

    def costing(start: int) -> dict[str, Any]:
        spec = yaml.safe_load(spec_file.read_text()) | {"name": "other"}
        spec["cost"]["start"] = start
        path = write_spec(tmp_path, spec)
        assert run(["ablate", str(path), "--out", str(undisturbed.out)]) == 0
        assert "[1/" not in capsys.readouterr().err
        found: dict[str, Any] = json.loads(manifest.read_text())
        return found

    first = costing(1)
    assert {stage["state"] for stage in first["stages"]} == {"done"}
    manifest.unlink()
    assert costing(1)["stages"] == first["stages"]
    assert costing(2)["spec"]["cost"]["start"] == 2
    assert stale(manifest.parent) == []


def test_what_is_done_is_collected_without_running_anything(
    undisturbed: Run, spec_file: Path, tmp_path: Path
) -> None:
    """Of a store that lacks the scores of an arm: gaps first, and then the whole table."""
    out = tmp_path / "out"
    shutil.copytree(undisturbed.out / "store", out / "store")
    lost = [s for s in undisturbed.stages() if s["label"].startswith("oracle of DPO+A seed")]
    assert len(lost) == SEEDS
    for stage in lost:
        shutil.rmtree(Store(out / "store").folder(stage["kind"], stage["id"]))
    some = ablate(spec_file, out, 1, "--collect")
    assert some.code == 2
    assert f"{SEEDS} stages are missing: run it without --collect" in some.stderr
    assert "[1/" not in some.stderr
    assert (
        f"Missing scores: oracle {SEEDS * PROMPTS} of {ROWS}."
        in some.folder.joinpath("table.md").read_text()
    )
    assert finished(out) == STAGES - SEEDS
    assert {s["id"] for s in some.stages() if s["state"] == "missing"} == {s["id"] for s in lost}
    for stage in lost:
        there, here = (
            Store(root / "store").folder(stage["kind"], stage["id"])
            for root in (undisturbed.out, out)
        )
        shutil.copytree(there, here)
    every = ablate(spec_file, out, 1, "--collect")
    assert every.code == 0, every.stderr
    assert every.results() == undisturbed.results()
    assert every.stages() == undisturbed.stages()


def test_an_interrupted_run_goes_on_elsewhere_with_one_worker(
    undisturbed: Run, spec_file: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(spec_file, out, 1, log)
    try:
        assert wait_for(lambda: b"[1/" in log.read_bytes(), process), log.read_text()
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does on Ctrl-C.
        assert process.wait(PATIENCE) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    *lines, last = log.read_text().splitlines()
    assert last == "bench: interrupted; the same command goes on from here"
    assert [line for line in lines if not re.match(r"\[\d+/\d+\] .*: done in", line)] == []
    before = finished(out)
    assert 0 < before < STAGES
    rerun = ablate(spec_file, out, 1)
    assert rerun.code == 0, rerun.stderr
    assert f"/{STAGES - before}]" in rerun.stderr
    assert rerun.results() == undisturbed.results()


def test_a_killed_run_comes_to_the_same_bytes(
    undisturbed: Run, spec_file: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    rng = np.random.default_rng(KILLS)
    killed = 0
    # One moment in each part of the run, so that every attempt gets on.
    for low, high in pairwise(np.linspace(0, STAGES - 4, KILLS + 1)):
        moment, delay, whole = int(rng.uniform(low, high)), rng.uniform(0, 0.5), rng.random() < 0.5
        process = start(spec_file, out, 2, log)
        try:
            wait_for(lambda n=moment: finished(out) >= n, process)
            time.sleep(delay)
            if process.poll() is not None:
                break  # The last stages are short.
            # Either the group, or the parent alone: its workers must follow it.
            (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
            assert process.wait(PATIENCE) == -signal.SIGKILL
            killed += 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert killed >= min(KILLS, 2), log.read_text()
    rerun = ablate(spec_file, out, 2)
    assert rerun.code == 0, rerun.stderr
    assert rerun.results() == undisturbed.results()
    digests = {stage["id"]: stage["digest"] for stage in undisturbed.stages()}
    assert {stage["id"]: stage["digest"] for stage in rerun.stages()} == digests


BROKEN = '''
from bench.rewards.base import Card, Reward


class Broken(Reward):
    """A reward of another package, which fails."""

    card = Card(name="broken", scale="none", range=(0, 1), weights=(), preprocessing="none",
                text=None, trained_on=(), licence="none", origin="rule")

    def load(self):
        pass

    def score(self, images, prompts):
        raise RuntimeError("out of luck")
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed package that registers a failing reward."""
    folder = tmp_path / "site"
    info = folder / "broken_reward-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "broken_reward.py").write_text(BROKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-reward\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dpo_bench.rewards]\nbroken = broken_reward:Broken\n")
    return folder


def test_a_failing_reward_leaves_a_table_with_gaps(
    undisturbed: Run, spec_file: Path, tmp_path: Path, site: Path
) -> None:
    spec = yaml.safe_load(spec_file.read_text()) | {"rewards": ["oracle", "broken"]}
    out = tmp_path / "out"
    shutil.copytree(undisturbed.out / "store", out / "store")
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = ablate(write_spec(tmp_path, spec), out, 2, PYTHONPATH=path)
    assert done.code == 2, done.stderr
    assert f"[{SETS}/{SETS}]" in done.stderr
    for arm in ("base", "DPO seed 0", "DPO+A+B seed 1"):
        told = re.search(
            rf"failed: broken of {re.escape(arm)}: UserError: the plug-in of broken-reward ended "
            r"in RuntimeError: out of luck: .* \(traceback: (.*)\)\n",
            done.stderr,
        )
        assert told is not None, done.stderr
        assert 'raise RuntimeError("out of luck")' in Path(told[1]).read_text()
    assert "Traceback" not in done.stderr
    table = (done.folder / "table.md").read_text()
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    assert ["arm", "seeds", "oracle*", "broken", "win rate against base*"] in lines
    for arm in ("base", "DPO", "DPO+A", "DPO+B", "DPO+A+B", "off", "same"):
        row = next(line for line in lines if line[0] == arm)
        assert row[3] == "missing"
        assert 0 <= float(row[2]) <= 1
    assert ["DPO+A - DPO", "missing"] in lines
    assert f"Missing scores: oracle 0 of {ROWS}, broken {ROWS} of {ROWS}." in table
    assert stale(done.folder) == []
    # A failure is never on record as done.
    assert finished(out) == STAGES
    states = [s["state"] for s in done.stages() if s["label"].startswith("broken of")]
    assert states == ["missing"] * SETS
    oracle = pq.read_table(done.folder / "scores.parquet").to_pandas()
    expected = pq.read_table(undisturbed.folder / "scores.parquet").to_pandas()
    assert oracle["score"].tolist() == expected["score"].tolist()
