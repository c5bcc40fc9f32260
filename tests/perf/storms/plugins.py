"""Row: plug-ins of other packages that raise, exit, print or return junk."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from commands import ROOT, Done, bench
from experiment import Setting, copy
from judges import Wrong, clean, refused, succeeded, told
from rows import Row, Try

REWARD = """
import numpy as np
from bench.rewards.base import Card, Reward


class Odd(Reward):
    card = Card(name="odd", scale="none", range=(0, 1), weights=(), preprocessing="none",
                text=None, trained_on=(), licence="none", origin="rule")

    def load(self):
        {load}

    def score(self, images, prompts):
        {score}
"""
"""A reward of another package, that does something else."""
FINE = "return np.zeros(len(images), np.float32)"


def _reward(load: str = "pass", score: str = FINE, before: str = "") -> str:
    return before + REWARD.format(load=load, score=score)


RAISES = {
    "raises in score": _reward(score="raise RuntimeError('out of luck')"),
    "raises in load": _reward(load="raise OSError('no such disk')"),
    "raises an error of many lines": _reward(score="raise ValueError('a\\nb\\nc')"),
    "raises with markup": _reward(score="raise ValueError('[/red] [bold]')"),
    "raises half a pair": _reward(score="raise ValueError('\\ud83d')"),
    "recurses": _reward(score="return self.score(images, prompts)"),
    "exits in score": _reward(score="raise SystemExit(3)"),
    "exits in load": _reward(load="raise SystemExit('bye')"),
    "returns too few": _reward(score="return np.zeros(0, np.float32)"),
    "returns texts": _reward(score="return np.array(['a'] * len(images))"),
    "returns nothing": _reward(score="return None"),
    "returns a list": _reward(score="return [[0.0]] * len(images)"),
    "returns a number": _reward(score="return 0.5"),
}
"""Rewards that are named, while another one is scored."""
NOT_FINITE = {
    "returns NaN": _reward(score="return np.full(len(images), np.nan, np.float32)"),
    "returns infinities": _reward(score="return np.full(len(images), np.inf, np.float32)"),
}
PRINTS = {
    "prints when it is imported": _reward(before="print('hello')\n"),
    "prints in score": _reward(score=f"print('hello'); {FINE}"),
    "writes to the terminal itself": _reward(score=f"import os; os.write(1, b'hello'); {FINE}"),
    "warns": _reward(before="import warnings\nwarnings.warn('careful')\n"),
}
"""Rewards that work, and talk."""
IMPORTS = {
    "raises when it is imported": "raise RuntimeError('out of luck')",
    "exits when it is imported": "raise SystemExit(3)",
    "does not parse": "def (",
    "needs what is not installed": "import no_such_module",
    "lacks its class": "Strange = 1",
    "is no reward": "Odd = 7",
    "is an abstract reward": "from bench.rewards.base import Reward as Odd",
    "is a class of another kind": "class Odd: pass",
    "has another name": _reward().replace('name="odd"', 'name="even"'),
    "has no card": "from bench.rewards.base import Reward\nclass Odd(Reward):\n"
    "    def load(self): pass\n    def score(self, i, p): return None\n",
}
"""Modules that are no rewards."""


def _install(source: str, folder: Path, group: str = "rewards", name: str = "odd") -> str:
    """Put a package beside; gives the PYTHONPATH on which it is found."""
    site = folder / "site"
    info = site / "odd_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "odd_package.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dpo_bench.{group}]\n{name} = odd_package:Odd\n")
    return os.pathsep.join([str(site), str(ROOT)])


def _score(setting: Setting, folder: Path, path: str, *more: str) -> Done:
    images = copy(next((setting.undisturbed / "store" / "images").iterdir()), folder / "images")
    job = ["score", images, "--rewards", "odd,oracle", "--out", folder / "x.parquet", *more]
    return bench(job, folder, PYTHONPATH=path)


def _works(folder: Path, reward: str = "oracle") -> None:
    """Raise Wrong unless every image has a score of a reward."""
    if not (folder / "x.parquet").exists():
        raise Wrong(f"{reward} was not scored")
    rows = pq.read_table(folder / "x.parquet").to_pylist()
    scores = [row["score"] for row in rows if row["reward"] == reward]
    if not scores or None in scores:
        raise Wrong(f"{reward} was not scored")


def _fails(source: str, setting: Setting, folder: Path) -> None:
    path = _install(source, folder)
    refused(_score(setting, folder, path), "odd")
    _works(folder)
    spec = yaml.safe_load(setting.spec.read_text()) | {"rewards": ["oracle", "mini-clip", "odd"]}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    out = setting.finished(folder)
    (out / "tiny").rename(out / "aside")
    job = ["ablate", folder / "spec.yaml", "--out", out, "--workers", "1"]
    done = bench(job, folder, PYTHONPATH=path)
    if clean(done).code != 2 or "odd" not in done.stderr:
        raise Wrong(f"an experiment with it: code {done.code}, not 2: {done.last()}")


def _not_finite(source: str, setting: Setting, folder: Path) -> None:
    told(_score(setting, folder, _install(source, folder)))
    _works(folder)


def _talks(source: str, setting: Setting, folder: Path) -> None:
    """What it says is never taken for what the command says."""
    path = _install(source, folder)
    done = succeeded(_score(setting, folder, path, "--json"))
    _works(folder)
    _works(folder, "odd")
    try:
        json.loads(done.stdout)
    except ValueError as error:
        raise Wrong(f"--json is no JSON: {done.stdout[:60]!r}") from error


def _broken(source: str, setting: Setting, folder: Path) -> None:
    """It is named where it is asked for, and nowhere stands in the way of the rest."""
    path = _install(source, folder)
    refused(_score(setting, folder, path), "odd")
    told(bench(["list"], folder, PYTHONPATH=path))
    (folder / "x.parquet").unlink(missing_ok=True)
    job = ["score", folder / "images", "--rewards", "oracle", "--out", folder / "x.parquet"]
    succeeded(bench(job, folder, PYTHONPATH=path))
    _works(folder)


OTHERS: dict[str, tuple[str, str, str]] = {
    "an objective that raises when it is imported": (
        "objectives",
        "odd",
        "raise RuntimeError('x')",
    ),
    "an objective of junk": ("objectives", "odd", "Odd = 7"),
    "an objective with the name of ours": ("objectives", "dpo", "Odd = 7"),
    "a law that exits when it is imported": ("timestep_laws", "odd", "raise SystemExit(3)"),
    "a source that raises when it is imported": ("data", "odd", "raise OSError('x')"),
    "an optimiser that does not parse": ("optimizers", "odd", "def ("),
}
"""Plug-ins of other kinds, which an experiment that does not name them never meets."""


def _other(group: str, name: str, source: str, setting: Setting, folder: Path) -> None:
    path = _install(source, folder, group, name)
    job = [*setting.arguments(folder / "out"), "--plan"]
    own = bench(job, folder, PYTHONPATH=path)
    refused(own, "odd") if name != "odd" else succeeded(own)
    told(bench(["list"], folder, PYTHONPATH=path))
    refused(bench([*job, "--set", _naming(group)], folder, PYTHONPATH=path), "odd")


def _naming(group: str) -> str:
    """A change of the spec that names the plug-in."""
    return {
        "objectives": "train.objective={name: odd}",
        "timestep_laws": "train.timesteps.law={name: odd}",
        "data": "data={name: odd, path: x}",
        "optimizers": "train.optimizer={name: odd}",
    }[group]


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    setting.undisturbed  # noqa: B018  (made before the tries)
    kinds: list[tuple[dict[str, str], Callable[..., None]]] = [
        (RAISES, _fails), (NOT_FINITE, _not_finite), (PRINTS, _talks), (IMPORTS, _broken),
    ]  # fmt: skip
    found = [
        Try(f"a reward that {said}", partial(run, source, setting))
        for sources, run in kinds
        for said, source in sources.items()
    ]
    for said, given in OTHERS.items():
        found.append(Try(said, partial(_other, *given, setting)))
    return found[:count]


ROW = Row("plugins", "plug-ins that raise, exit, print, return junk", tries, 100)
