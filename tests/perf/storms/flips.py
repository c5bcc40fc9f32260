"""Row: single bits flipped in a result folder, which ``bench table --check`` must see."""

from functools import partial
from pathlib import Path

import numpy as np
from damage import flip
from experiment import Setting, copy
from finished import checked
from rows import Row, Try

SHARES = {"scores.parquet": 5, "manifest.json": 1, "protocol.json": 2, "table.md": 1,
          "table.csv": 1, "table.json": 1}  # fmt: skip
"""How often a file is hit."""


def _storm(name: str, seed: int, setting: Setting, folder: Path) -> None:
    out = folder / "out"
    out.mkdir()
    copy(setting.undisturbed / "tiny", out / "tiny")
    flip(out / "tiny" / name, np.random.default_rng(seed))
    checked(folder, out, setting, name)


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    names = [name for name, share in SHARES.items() for _ in range(share)]
    found = []
    for n in range(count):
        name, seed = names[n % len(names)], int(rng.integers(2**31))
        found.append(Try(f"bit {seed} of {name}", partial(_storm, name, seed, setting)))
    return found


ROW = Row("flips", "bit flips in a result's files: seen by `bench table --check`", tries, 330)
