"""Streamed pairs in an experiment and on the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run
from bench.experiment.prepare import Experiment, prepare
from bench.spec.model import parse_spec
from trainers.errors import UserError

STREAMED = {"name": "parquet", "path": "owner/pairs@main", "streaming": True}
ROOT = Path(__file__).parents[4]
Spec = Callable[[], dict[str, Any]]


def test_bench_data_check_of_a_stream(
    server: Any, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process of its own finds what one finds in the files, and writes none anywhere."""
    places = {"HOME": "home", "HF_HOME": "hub", "TMPDIR": "tmp", "DPO_BENCH_HOME": "own"}
    for folder in places.values():
        (tmp_path / folder).mkdir()
    set_here = {
        **{name: str(tmp_path / folder) for name, folder in places.items()},
        "HF_ENDPOINT": server.endpoint,
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    call = "import sys; from bench.cli import run; sys.exit(run(sys.argv[1:]))"
    command = ["data", "check", json.dumps(STREAMED), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", call, *command],
        env=os.environ | set_here, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run(["data", "check", str(shards), "--json"]) == 0
    assert json.loads(done.stdout) == json.loads(capsys.readouterr().out)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_a_network_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Tests run with HF_HUB_OFFLINE, which ``--offline`` sets."""
    assert run(["data", "check", json.dumps(STREAMED)]) == 1
    assert "streaming needs the network" in capsys.readouterr().err


def experiment(spec: dict[str, Any], data: Any, **more: Any) -> Experiment:
    return prepare(parse_spec({**spec, "data": data, **more}, "test"))


def test_an_experiment_is_the_same_from_a_stream(
    hub: Any, shards: Path, tiny_experiment: Spec
) -> None:
    """Every stage has the identity that it has with the files: a run from either goes on."""
    ids = [
        [stage.id for stage in experiment(tiny_experiment(), data).stages()]
        for data in (STREAMED, str(shards))
    ]
    assert ids[0] == ids[1]


def test_a_stream_without_kept_encodings_is_refused(tiny_experiment: Spec) -> None:
    """Every step would ask for row groups all over the data set."""
    with pytest.raises(UserError, match="the data is streamed: keep encodings, or download"):
        experiment(tiny_experiment(), STREAMED, encoding={"cache": False})
