"""Packages that are broken, each in its own way: they are named, and what is of others works."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from bench.cli import run
from bench.rewards import REWARDS
from bench.world.scenes import render, scenes
from trainers.objectives import OBJECTIVES

REWARD = """
import sys
import numpy as np
from bench.rewards.base import Card, Reward

print("noise at import")

class Junk(Reward):
    card = Card(name="junk", scale="x", range=(0, 1), weights=(), preprocessing="none", text=None,
                trained_on=(), licence="none", origin="rule")
    def __init__(self, *arguments, **more):
        print("noise")
        super().__init__(*arguments, **more)
    def load(self): print("noise")
    def score(self, images, prompts):
        print("noise")
        return {returned}
"""
OBJECTIVE = """
import sys
from typing import ClassVar
from trainers.objectives.sft import SFT

class Odd(SFT):
    name: ClassVar[str] = "odd"
    {setting}
    def loss(self, batch):
        {body}
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay a package out as pip would, in place of whatever was loaded of it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for registry in (REWARDS, OBJECTIVES):
        monkeypatch.setattr(registry, "_loaded", {})

    def lay_out(kind: str, entry: str, source: str | None, points: str | None = None) -> None:
        monkeypatch.delitem(sys.modules, "odd_pkg", raising=False)
        if source is not None:
            (folder / "odd_pkg.py").write_text(source)
        info = folder / "odd_pkg-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-pkg\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points or f"[dpo_bench.{kind}]\n{entry}\n")

    return lay_out


AT_IMPORT = {
    "raises": ("junk = odd_pkg:Junk", "raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits": ("junk = odd_pkg:Junk", "import sys; sys.exit(0)", "SystemExit: 0"),
    "leaves": ("junk = odd_pkg:Junk", "exit()", "SystemExit"),
    "is no Python": ("junk = odd_pkg:Junk", "def", "SyntaxError"),
    "needs a module": ("junk = odd_pkg:Junk", "import not_there", "ModuleNotFoundError"),
    "is missing": ("junk = odd_pkg:Junk", None, "ModuleNotFoundError"),
    "lacks the class": ("junk = odd_pkg:Junk", "x = 1", "AttributeError"),
    "is no entry point": ("junk = not a module!", "x = 1", "to import, got"),
    "is a function": ("junk = odd_pkg:Junk", "def Junk(): pass", "no class derived from Reward"),
    "is another class": ("junk = odd_pkg:Junk", "class Junk: name = 'junk'", "no class derived"),
    "is abstract": (
        "junk = odd_pkg:Junk",
        REWARD.format(returned="0").replace("def score", "def scores"),
        "lacks score",
    ),
    "has no card": (
        "junk = odd_pkg:Junk",
        "from bench.rewards.base import Reward\nclass Junk(Reward):\n"
        " def load(self): pass\n def score(self, images, prompts): pass",
        "calls itself None",
    ),
    "has another card": (
        "junk = odd_pkg:Junk",
        "from bench.rewards.base import Reward\nclass Junk(Reward):\n card = {'name': 'junk'}",
        "expected a Card, got dict",
    ),
    "has another name": ("other = odd_pkg:Junk", REWARD.format(returned="0"), "calls itself"),
}


@pytest.mark.parametrize(("entry", "source", "why"), AT_IMPORT.values(), ids=AT_IMPORT)
def test_a_broken_reward_is_left_out_and_named(
    install: Install,
    capsys: pytest.CaptureFixture[str],
    entry: str,
    source: str | None,
    why: str,
) -> None:
    install("rewards", entry, source)
    assert run(["list", "rewards", "--json"]) == 0
    out, err = capsys.readouterr()
    names = {row["name"] for row in json.loads(out)["rewards"]}
    assert "oracle" in names and not names & {"junk", "other"}
    (line,) = (line for line in err.splitlines() if line != "noise at import")
    assert line.startswith("left out: reward '") and why in line
    assert run(["score", ".", "--rewards", entry.split(" ")[0]]) == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("points", ["no section", "[dpo_bench.rewards]\nno equals sign\n"])
def test_metadata_that_cannot_be_read_is_no_others_fault(
    install: Install, capsys: pytest.CaptureFixture[str], points: str
) -> None:
    install("rewards", "", "", points)
    assert run(["list", "rewards"]) == 0
    out, err = capsys.readouterr()
    assert "oracle" in out
    assert err == "" or err.startswith("left out: the entry points of odd-pkg cannot be read (")
    assert err.count("\n") <= 1


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of the world, which the oracle can read."""
    shown = scenes("test")[:3]
    for number, scene in enumerate(shown):
        Image.fromarray(render(scene)).save(tmp_path / f"{number}.png")
    (tmp_path / "p.txt").write_text("".join(f"{scene.caption}\n" for scene in shown))
    return tmp_path


RETURNED = {
    "nothing": ("None", "expected a score for each of"),
    "a number": ("3.0", "expected a score for each of"),
    "too few": ("np.zeros(1)", "expected a score for each of"),
    "too many": ("np.zeros(len(images) + 1)", "expected a score for each of"),
    "columns": ("np.zeros((len(images), 1))", "expected a score for each of"),
    "texts": ("['1.0'] * len(images)", "expected a score for each of"),
    "booleans": ("[True] * len(images)", "expected a score for each of"),
    "objects": ("[object()] * len(images)", "expected a score for each of"),
    "ragged lists": ("[[1], [1, 2], 3]", "ValueError"),
    "a mapping": ("{'a': 1}", "expected a score for each of"),
    "NaN": ("[float('nan')] * len(images)", "3 scores are missing or not finite"),
    "infinity": ("[1e300] * len(images)", "3 scores are missing or not finite"),
    "an error": ("1 / 0", "ZeroDivisionError"),
    "an exit": ("sys.exit(0)", "SystemExit: 0"),
}


@pytest.mark.parametrize(("returned", "why"), RETURNED.values(), ids=RETURNED)
def test_junk_of_a_reward_is_named_and_the_others_score(
    install: Install,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    returned: str,
    why: str,
) -> None:
    install("rewards", "junk = odd_pkg:Junk", REWARD.replace("{returned}", returned))
    command = ["score", str(pictures), "--prompts", str(pictures / "p.txt"), "--json"]
    assert run([*command, "--rewards", "junk,oracle"]) == 2
    out, err = capsys.readouterr()
    rows = {row["reward"]: row for row in json.loads(out)["rewards"]}
    assert (rows["junk"]["scored"], rows["oracle"]["scored"]) == (0, 3)
    assert why in f"{rows['junk']['failed']} {err} 3 scores are missing or not finite"
    assert run([*command[:-1], "--rewards", "junk"]) == 2
    out, err = capsys.readouterr()
    assert why in out + err and "Traceback" not in err


BODIES = {
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits": ("sys.exit(0)", "SystemExit: 0"),
    "returns nothing": ("return None", "got NoneType: mend its loss()"),
    "returns text": ("return 'text'", "got str: mend its loss()"),
    "returns a number": ("return 3.0", "got float: mend its loss()"),
    "returns one mean": ("return batch.winner.error.mean()", "got torch.float32 []: mend"),
    "returns a constant": ("return batch.winner.error.detach()", "got constant torch.float32 [4]"),
    "returns NaN": ("return batch.winner.error * float('nan')", "is not finite"),
}


@pytest.mark.parametrize(("body", "why"), BODIES.values(), ids=BODIES)
def test_an_objective_that_breaks_is_named(
    install: Install,
    tiny_experiment: Callable[[], dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    body: str,
    why: str,
) -> None:
    install("objectives", "odd = odd_pkg:Odd", OBJECTIVE.format(setting="", body=body))
    raw = tiny_experiment() | {"components": {}}
    raw["train"] |= {"objective": {"name": "odd"}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(raw))
    assert run(["train", "DPO", "--out", str(tmp_path / "out"), str(tmp_path / "spec.yaml")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("bench: ") and why in said


def test_a_setting_that_raises_is_named(
    install: Install,
    tiny_experiment: Callable[[], dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = "def model_post_init(self, context): print('noise'); sys.exit(0)"
    install("objectives", "odd = odd_pkg:Odd", OBJECTIVE.format(setting=setting, body="pass"))
    raw = tiny_experiment()
    raw["train"] |= {"objective": {"name": "odd"}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(raw))
    assert run(["list", "objectives", "--json"]) == 0
    out, err = capsys.readouterr()
    names = {row["name"] for row in json.loads(out)["objectives"]}
    assert "sft" in names and "odd" not in names
    assert "left out: objective 'odd': the plug-in of odd-pkg ended in SystemExit: 0" in err
    assert run(["ablate", str(tmp_path / "spec.yaml"), "--plan", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(
        "bench: the plug-in of odd-pkg ended in SystemExit: 0: mend or uninstall that package\n"
    )
