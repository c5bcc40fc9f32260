"""Settings that every test needs before torch is imported, and a tiny experiment."""

import os
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Two threads per process spin against each other on small machines, and change the last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

NUMERIC = ("parity", "golden", "bench/rewards", "bench/mini", "bench/images", "trainers")
"""Folders whose tests compute with models; ``python tests/numeric.py`` runs them."""
NOT_NUMERIC = (
    "bench/images/test_folder.py",
    "bench/images/test_read.py",
    "bench/rewards/kit/test_weights.py",
    "golden/test_shipped_files.py",
    "bench/images/test_order.py",
    "bench/rewards/kit/test_text.py",
    "trainers/backbones/test_hostile_adapters.py",
    "trainers/backbones/test_hostile_folders.py",
    "trainers/input",
    "trainers/machine/test_all_objectives.py",
    "trainers/machine/test_spawn.py",
    "trainers/data/streaming",
    "trainers/data/test_prepare.py",
    "trainers/data/test_sources.py",
    "trainers/test_config.py",
    "trainers/test_files.py",
    "trainers/test_locks.py",
    "trainers/test_registry.py",
)
"""What in them starts processes, or only reads and writes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of numbers."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here)
        if any(place.is_relative_to(folder) for folder in NUMERIC) and not any(
            place.is_relative_to(folder) for folder in NOT_NUMERIC
        ):
            item.add_marker("numeric")


TINY: dict[str, Any] = {
    "name": "tiny",
    "title": "A tiny experiment",
    "label": "a test",
    "base": "mini-sd",
    "data": "mini-pairs",
    "train": {
        "objective": {"name": "dpo", "beta": 5000},
        "reference": {"name": "frozen"},
        "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
        "optimizer": {"lr": 2.0e-4},
        "steps": 4,
        "batch_size": 4,
    },
    "objectives": {"DPO": {}},
    "components": {
        "A": {
            "label": "reference update",
            "set": {"reference": {"name": "hard-copy", "tau": 2, "delta": 0.005}},
        },
        "B": {
            "label": "timestep-aware training",
            "set": {
                "timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}}
            },
        },
    },
    "seeds": [0, 1],
    "generate": {"steps": 2, "guidance": 4.0},
    "prompts": "mini-dev",
    "prompt_limit": 6,
    "rewards": ["oracle"],
    "primary": "oracle",
    "cost": {"pair": 0.012, "image": 0.06, "score": 0.004, "start": 8},
}


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept between runs is kept apart from the user's own; subprocesses inherit it."""
    os.environ["DPO_BENCH_HOME"] = str(tmp_path_factory.mktemp("home"))


def threads() -> int | None:
    """How many torch computes with, if it was imported; tables are tested without it."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """No test changes with how many threads the next ones compute."""
    before = threads()
    yield
    assert before in (None, threads())


@pytest.fixture(scope="session")
def tiny_experiment() -> Callable[[], dict[str, Any]]:
    """Gives a tiny experiment as plain data, a new copy at each call."""
    return lambda: deepcopy(TINY)
