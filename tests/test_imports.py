"""What is not loaded: settings, and whatever only reads, need no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "diffusers", "transformers"}
ROOT = Path(__file__).parents[1]
ROOMS = ("bench.spec", "bench.stats", "bench.cli", "bench.results", "bench.report")


def loaded(*arguments: str) -> set[str]:
    """Packages that a Python process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    found = {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in lines}
    assert "pathlib" in found, "the report of imports is read as it is written"
    return found


@pytest.mark.parametrize(
    "command",
    ["--help", "list", "list rewards", "list objectives --json", "leaderboard results/first-world"],
)
def test_commands_that_load_no_torch(command: str) -> None:
    assert not loaded("-m", "bench", *command.split()) & HEAVY


@pytest.mark.parametrize("room", [*ROOMS, "trainers.config"])
def test_rooms_that_load_no_torch(room: str) -> None:
    """Every module of it."""
    place = ROOT / room.replace(".", "/")
    files = sorted(place.rglob("*.py")) or [place.with_suffix(".py")]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    names = [module.removesuffix(".__init__") for module in modules]
    assert room in names
    assert not loaded("-c", f"import {', '.join(names)}") & HEAVY


def test_torch_would_be_seen() -> None:
    assert "torch" in loaded("-c", "import trainers.core")
