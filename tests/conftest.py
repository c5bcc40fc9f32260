"""Settings that every test needs before torch is imported, and a tiny experiment."""

import os
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

# Two threads per process spin against each other on small machines, and change the last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

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


@pytest.fixture(scope="session")
def tiny_experiment() -> Callable[[], dict[str, Any]]:
    """Gives a tiny experiment as plain data, a new copy at each call."""
    return lambda: deepcopy(TINY)
