"""A package of another author, installed by pip, takes part like a built-in reward."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.cli import run
from bench.rewards import REWARDS
from bench.world.scenes import render, scenes

HERE = Path(__file__).parent
BENCH = "import sys; from bench.cli import run; sys.exit(run(sys.argv[1:]))"


def python(*arguments: object, beside: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run this Python, with the packages of one more folder."""
    paths = [*([str(beside)] if beside else []), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    command = [sys.executable, *(str(a) for a in arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def install(package: Path, target: Path) -> None:
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = python("-m", "pip", "install", *options, "--target", target, package)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, which is built from a copy."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    target = tmp_path_factory.mktemp("installed")
    install(source, target)
    return target


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A picture of the world, and one whose colourfulness is known."""
    scene = scenes("test")[0]
    Image.fromarray(render(scene)).save(tmp_path / "0.png")
    plain = np.zeros((64, 64, 3), np.uint8)
    plain[:32, :, 0] = 255  # Half red, half black.
    Image.fromarray(plain).save(tmp_path / "1.png")
    (tmp_path / "prompts.txt").write_text(f"{scene.caption}\n{scene.caption}\n")
    return tmp_path


def test_it_is_listed_with_its_card(installed: Path) -> None:
    done = python("-c", BENCH, "list", "rewards", "--json", beside=installed)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rewards"]}
    card = rows["colourfulness"]
    assert (card["scale"], card["range"], card["origin"]) == ("M of 0-255", "0 to 110", "rule")
    assert "oracle" in rows


def test_it_scores_beside_a_built_in_reward(installed: Path, pictures: Path) -> None:
    options = ("--prompts", pictures / "prompts.txt", "--rewards", "colourfulness,oracle")
    done = python("-c", BENCH, "score", pictures, *options, "--json", beside=installed)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(pictures / "scores.parquet").to_pylist()
    scores = {(row["reward"], row["k"]): row["score"] for row in rows}
    assert set(scores) == {(r, k) for r in ("colourfulness", "oracle") for k in (0, 1)}
    # rg is 255 and 0 in equal parts: mean and deviation 127.5; yb is half of that.
    expected = 127.5 * (1 + 0.3) * np.hypot(1, 0.5)
    assert scores["colourfulness", 1] == pytest.approx(expected, rel=1e-6)
    assert json.loads(done.stdout)["rewards"][0]["signature"].startswith("colourfulness|rule|M of")


def test_it_passes_the_checks_that_every_reward_must(installed: Path) -> None:
    code = "from bench.rewards import REWARDS; from bench.rewards.conformance import check; "
    done = python("-c", code + "check(REWARDS.get('colourfulness'))", beside=installed)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("claimed", ["colourfulness", "oracle"])
def test_two_packages_cannot_claim_one_name(
    installed: Path,
    pictures: Path,
    tmp_path: Path,
    claimed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = tmp_path / "source", tmp_path / "rival"
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    project = (source / "pyproject.toml").read_text()
    project = project.replace("dpo-bench-colourfulness", "rival")
    project = project.replace("colourfulness = ", f"{claimed} = ")
    (source / "pyproject.toml").write_text(project)
    install(source, target)
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(target)
    score = ["score", str(pictures), "--prompts", str(pictures / "prompts.txt")]
    for command in (["list", "rewards"], [*score, "--rewards", "oracle"]):
        monkeypatch.setattr(REWARDS, "_loaded", {})
        assert run(command) == 1
        told = capsys.readouterr().err
        assert f"reward '{claimed}' is registered twice, the second time by" in told
        assert "rename it there, or uninstall that package" in told
    assert not (pictures / "scores.parquet").exists()
