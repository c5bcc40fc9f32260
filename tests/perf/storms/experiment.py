"""A tiny experiment, its undisturbed run, and whether another came to the same bytes."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from commands import ROOT, Done, Running, bench, fork, start
from judges import Wrong

from bench.assets import pairs_file

RESULTS = ("scores.parquet", "protocol.json", "table.md", "table.csv", "table.json")
"""What an equal run gives equal; the manifest has times."""
PROMPTS, PAIRS = 4, 24


def _tiny() -> dict[str, Any]:
    """The tiny experiment of the tests."""
    described = importlib.util.spec_from_file_location("tiny", ROOT / "tests/conftest.py")
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    found: dict[str, Any] = module.TINY
    return found


def spec(folder: Path, **changes: Any) -> Path:
    """Write the spec with some of its keys changed, and its pairs beside it."""
    pairs = folder / "pairs.parquet"
    if not pairs.exists():
        pq.write_table(pq.read_table(pairs_file()).slice(0, PAIRS), pairs)
    raw = _tiny()
    raw |= {
        "data": str(pairs), "components": {"A": raw["components"]["A"]}, "seeds": [0],
        "prompt_limit": PROMPTS, "rewards": ["oracle", "mini-clip"],
        "statistics": {"control_pairs": 2}, "training": {"checkpoint_every": 1},
    } | changes  # fmt: skip
    path = folder / f"{raw['name']}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def results(folder: Path) -> dict[str, str]:
    """sha256 of what a result folder holds."""
    return {
        name: sha256(folder / name) if (folder / name).is_file() else "nothing" for name in RESULTS
    }


def networks(out: Path) -> dict[str, str]:
    """sha256 of every trained network below a folder."""
    return {
        path.relative_to(out).as_posix(): sha256(path)
        for path in sorted(out.rglob("diffusion_pytorch_model.safetensors"))
        if path.is_file()
    }


def copy(source: Path, target: Path) -> Path:
    """Copy a folder with its times and hard links, as a backup would."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    return target


@dataclass(frozen=True)
class Setting:
    """Where a storm takes place, and what every try of it may begin with."""

    work: Path
    """Everything that is made lies below."""

    @cached_property
    def spec(self) -> Path:
        return spec(self.work)

    @cached_property
    def undisturbed(self) -> Path:
        """The folder of a run that nothing came in the way of: store and results."""
        out = self.work / "undisturbed"
        self._make(out)
        return out

    @cached_property
    def seconds(self) -> float:
        """How long that run takes, as seen now."""
        out, began = self.work / "timed", time.monotonic()
        self._make(out)
        shutil.rmtree(out)
        return time.monotonic() - began

    def _make(self, out: Path) -> None:
        """Run the experiment; without that there is nothing to attack."""
        done = self.ablate(self.work, out)
        if done.code != 0:
            raise SystemExit(f"the undisturbed run failed: {done.last()}")

    def arguments(self, out: Path, workers: int = 2) -> list[str | Path]:
        """The main job as a command line."""
        return ["ablate", self.spec, "--out", out, "--workers", str(workers)]

    def ablate(self, folder: Path, out: Path, workers: int = 2) -> Done:
        return bench(self.arguments(out, workers), folder)

    def ablate_in_fork(self, folder: Path, out: Path) -> Done:
        return fork(self.arguments(out, 1), folder)

    def start(self, folder: Path, out: Path, workers: int = 2, **environment: str) -> Running:
        return start(self.arguments(out, workers), folder, **environment)

    def finished(self, folder: Path) -> Path:
        """A copy of the undisturbed run."""
        return copy(self.undisturbed, folder / "out")

    def same(self, out: Path, networks_too: bool = True) -> None:
        """Raise Wrong unless a folder holds the bytes of the undisturbed run.

        Networks may lack where ``networks_too`` is false: what was made from them is there.
        """
        differ(results(self.undisturbed / "tiny"), results(out / "tiny"))
        expected, found = networks(self.undisturbed / "store"), networks(out / "store")
        if not networks_too:
            expected = {name: digest for name, digest in expected.items() if name in found}
        differ(expected, found)

    def interrupted(self, name: str, until: Callable[[Path], bool]) -> Path:
        """The folder of a run that was killed as soon as something was true of its store."""
        out = self.work / f"interrupted-{name}"
        for _ in range(8):
            if until(out / "store"):
                return out
            if out.exists():
                shutil.rmtree(out)
            running = self.start(self.work, out, workers=1)
            killed_when(running, lambda: until(out / "store"))
        raise SystemExit(f"no run could be interrupted while {name}: {running.wait().last()}")


def killed_when(running: Running, true: Callable[[], bool]) -> None:
    """Kill a command and its workers as soon as something is true, or let it end."""
    while running.alive():
        if true():
            running.kill()
            return
        time.sleep(0.002)


def differ(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise Wrong, naming what differs, unless two sets of files are the same."""
    names = [name for name in expected if expected[name] != found.get(name, "nothing")]
    if names:
        raise Wrong(f"other bytes, silently: {', '.join(names)[:200]}")


def unrecorded(store: Path) -> list[Path]:
    """Folders of stages that were begun and are not on record as done."""
    return [
        folder
        for folder in sorted(store.glob("*/*"))
        if folder.is_dir()
        and folder.parent.name != "pool"
        and not (folder / "status.json").exists()
    ]


assert sys.platform == "linux", "storms are made of signals, links and limits of Linux"
