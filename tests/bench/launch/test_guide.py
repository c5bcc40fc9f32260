"""The commands of docs/cluster.md, as a user gives them, on a tiny experiment."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

GUIDE = Path(__file__).parents[3] / "docs" / "cluster.md"
PATIENCE = 900
"""Seconds until a command is taken to hang; a busy machine may be slow."""
RESULTS = ("scores.parquet", "protocol.json", "table.md", "table.csv", "table.json")


def commands(section: str) -> list[list[str]]:
    """The indented lines that follow the paragraph which begins with ``section``."""
    found = re.search(rf"^{section}.*?\n\n((?:    [^\n]+\n)+)", GUIDE.read_text(), re.M | re.S)
    assert found
    lines = [re.split(r"\s{4,}", line.strip())[0] for line in found[1].splitlines()]
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def spec(
    tiny_experiment: Callable[[], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The fewest stages that make a table, with two training seeds."""
    raw = tiny_experiment() | {"components": {}, "statistics": {"control_pairs": 2}}
    raw["prompt_limit"] = 3
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def give(command: list[str], spec: Path, folder: Path, patience: float = PATIENCE) -> None:
    """Run a command of the guide, which must end well."""
    words = [str(spec) if word == "SPEC" else word for word in command]
    if words[0] == "bench":
        words = [sys.executable, "-m", *words]
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=patience
    )
    assert done.returncode == 0, done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "runs" / "tiny" / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def local(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the three commands of one machine end with."""
    folder = tmp_path_factory.mktemp("local")
    for command in commands("On one machine:"):
        give(command, spec, folder)
    return files(folder)


def test_each_way_has_three_commands() -> None:
    for section in ("On one machine:", "On SLURM,", r"On Ray \("):
        assert len(commands(section)) == 3


def test_the_commands_of_slurm(
    cluster: Any, spec: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    for command in commands("On SLURM,"):
        give(command, spec, tmp_path)
    assert files(tmp_path) == local


@pytest.fixture
def head(tmp_path: Path) -> Iterator[None]:
    """The guide's first command of Ray, in the foreground, so that it ends with the test."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'dpo-bench[ray]'")
    start = [*commands(r"On Ray \(")[0], "--block"]
    assert start[0] == "ray"
    words = [sys.executable, "-m", "ray.scripts.scripts", *start[1:], "--num-cpus=2"]
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path / "ray")}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


@pytest.mark.usefixtures("head")
def test_the_commands_of_ray(spec: Path, local: dict[str, bytes], tmp_path: Path) -> None:
    for command in commands(r"On Ray \(")[1:]:
        give(command, spec, tmp_path / "here")
    assert files(tmp_path / "here") == local


def test_a_run_that_was_split_by_seeds_ends_in_the_table_of_all(
    spec: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    first, second, both = commands("## A run split over machines")
    for command in (first, second, both):
        give(command, spec, tmp_path)
    assert files(tmp_path) == local
