"""The folder of what is kept between runs: hashes, converted weights, environments."""

import os
from pathlib import Path

HOME = "DPO_BENCH_HOME"
"""Environment variable with the folder."""


def home() -> Path:
    """The folder that ``DPO_BENCH_HOME`` names, or ``~/.cache/dpo-bench``; it need not exist."""
    return Path(os.environ.get(HOME, "~/.cache/dpo-bench")).expanduser()
