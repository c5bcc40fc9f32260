"""Tables and leaderboards of made-up scores: how long they take, and how much memory.

python tests/perf/boards.py table        bench table, for 40,000 to 1,280,000 scores
python tests/perf/boards.py leaderboard  bench leaderboard, for 125 to 1,000 training runs
python tests/perf/boards.py report       bench report, likewise

Each command runs in a process of its own, whose processor seconds and peak memory are printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.results.files import COLUMNS, write_results
from bench.results.protocol import Protocol

ZERO = "0" * 64
COMMAND = "import sys; from bench.cli import run; sys.exit(run(sys.argv[1:]))"


def protocol(arms: int, seeds: int, prompts: int, rewards: int) -> Protocol:
    """An experiment of ``arms`` trained arms that are compared with the first and with base."""
    names = [f"arm{n}" for n in range(arms)]
    told = [
        {"name": f"{n} - {m}", "on": (n,), "off": (m,), "question": f"does {n} beat {m}?"}
        for n, m in [(names[0], "base"), *((name, names[0]) for name in names[1:])]
    ]
    return Protocol.model_validate(
        {
            "title": "Made-up scores",
            "label": "made up",
            "bench": "0",
            "arms": (
                {"name": "base", "seeds": (None,)},
                *({"name": name, "seeds": tuple(range(seeds))} for name in names),
            ),
            "control": ({"name": "A/A'", "seeds": (0, 1, 2)}, {"name": "A/A", "seeds": (0, 1, 2)}),
            "comparisons": told,
            "prompts": {
                "name": "made-up", "split": "test", "sha256": ZERO, "repeated": 0,
                "ids": tuple(f"p{n:06d}" for n in range(prompts)),
            },
            "images": {
                "per_prompt": 1, "sampler": "ddim", "steps": 50, "guidance": 7.5, "eta": 0.0,
                "height": None, "width": None, "seed": 0, "dtype": "float32", "matmul": "float32",
            },
            "rewards": tuple(
                {"name": f"reward{n}", "direction": "higher", "signature": f"reward{n}|1"}
                for n in range(rewards)
            ),
            "primary": "reward0",
            "statistics": {
                "alpha": 0.05, "gain": told[0]["name"], "share": 0.2, "bound": None, "tie": 0.0,
            },
            "pairs": {"data": "made-up", "kept": 1, "ties": 0, "labelled_by": ()},
        }
    )  # fmt: skip


def write(folder: Path, declared: Protocol, seed: int) -> int:
    """Write a result folder; returns the number of its scores."""
    parts = [*_parts(declared, np.random.default_rng(seed))]
    table = pa.concat_tables(parts)
    write_results(folder, declared, table, None)
    return len(table)


def _parts(declared: Protocol, rng: np.random.Generator) -> Iterator[pa.Table]:
    ids = pa.array(declared.prompts.ids)
    n = len(ids)
    level = rng.normal(size=n)
    pictures = [f"{rng.integers(2**62):064x}" for _ in range(n)]
    for reward in declared.rewards:
        for number, arm in enumerate(declared.all_arms()):
            for seed in arm.seeds:
                scores = level + 0.1 * min(number, 5) + 0.5 * rng.normal(size=n)
                run = pa.array([seed] * n, pa.int64())
                values: tuple[Any, ...] = (
                    ["made-up"] * n, [arm.name] * n, [arm.name] * n, run, ids, [0] * n, pictures,
                    [reward.name] * n, [reward.signature] * n, scores,
                )  # fmt: skip
                yield pa.table(dict(zip(COLUMNS, values, strict=True)))


def measure(arguments: list[str]) -> tuple[float, float]:
    """Processor seconds and peak GB of a command of the harness."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"bench {' '.join(arguments)} ended with {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def table(root: Path) -> None:
    """``bench table``: base, five arms of five seeds and two controls."""
    for prompts, rewards in ((313, 4), (1250, 4), (5000, 4), (10000, 4), (40000, 1)):
        folder = root / str(prompts)
        scores = write(folder, protocol(5, 5, prompts, rewards), 0)
        _tell(f"table, {scores} scores, {prompts} prompts", *measure(["table", str(folder)]))


def leaderboard(root: Path) -> None:
    """``bench leaderboard``: folders of five arms with five seeds, and one of many arms."""
    for folders in (5, 10, 20, 40):
        scores = sum(
            write(root / str(folders) / f"result{n}", protocol(5, 5, 200, 4), n)
            for n in range(folders)
        )
        used = measure(["leaderboard", str(root / str(folders))])
        _tell(f"leaderboard, {folders} folders, {scores} scores, {25 * folders} runs", *used)
    scores = write(root / "one" / "result", protocol(200, 5, 1000, 1), 0)
    used = measure(["leaderboard", str(root / "one")])
    _tell(f"leaderboard, 1 folder of 200 arms, {scores} scores, 1000 runs", *used)


def report(root: Path) -> None:
    """``bench report``: pages of arms with five seeds, 1,000 prompts and one reward."""
    for arms in (25, 50, 100, 200):
        folder, page = root / str(arms), root / f"{arms}.html"
        scores = write(folder, protocol(arms, 5, 1000, 1), 0)
        used = measure(["report", str(folder), "--out", str(page)])
        size = page.stat().st_size / 1e6
        _tell(f"report of {size:.1f} MB, {scores} scores, {5 * arms} runs", *used)


def _tell(what: str, seconds: float, peak: float) -> None:
    print(f"{what}: {seconds:.1f} s, {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("table", "leaderboard", "report"))
    with tempfile.TemporaryDirectory() as place:
        {"table": table, "leaderboard": leaderboard, "report": report}[parser.parse_args().what](
            Path(place)
        )
