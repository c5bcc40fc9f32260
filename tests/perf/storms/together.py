"""Rows: identical jobs at once, other commands beside them, and writers of one file of scores."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from commands import bench, fork, start, start_fork
from experiment import Setting, copy, differ, results, spec
from judges import Wrong, succeeded, told
from pyarrow import csv
from rows import Row, Try

REWARDS = "oracle,mini-clip"
ROWS = 100_000
"""Of a file before its writers come."""
COLUMNS = ["reward", "signature", "image_sha256", "prompt"]


def _identical(jobs: int, setting: Setting, folder: Path) -> None:
    out = folder / "out"
    running = [setting.start(folder, out, workers=1) for _ in range(jobs)]
    for one in running:
        succeeded(one.wait())
    setting.same(out)
    succeeded(bench(["table", out / "tiny", "--check"], folder))


def _two_specs(setting: Setting, folder: Path) -> None:
    """Two experiments that have stages in common, on one store, against each on its own."""
    other = spec(folder, name="other", seeds=[0, 1])
    alone, out = folder / "alone", folder / "out"
    job = ["ablate", other, "--workers", "1", "--out"]
    succeeded(bench([*job, alone], folder))
    running = [setting.start(folder, out, workers=1), start([*job, out], folder)]
    for one in running:
        succeeded(one.wait())
    differ(results(setting.undisturbed / "tiny"), results(out / "tiny"))
    differ(results(alone / "other"), results(out / "other"))


def _beside(setting: Setting, folder: Path) -> None:
    """Tables, scores and collections of a job, asked for again and again while it runs."""
    out = setting.finished(folder)
    shutil.rmtree(out / "store")
    images = _image_sets(setting, folder, 1)[0]
    running = setting.start(folder, out, workers=1)
    while running.alive():
        told(bench(["table", out / "tiny"], folder))
        told(bench(["score", images, "--rewards", REWARDS, "--out", out / "x.parquet"], folder))
        told(bench([*setting.arguments(out, 1), "--collect"], folder))
    succeeded(running.wait())
    setting.same(out)


def _image_sets(setting: Setting, folder: Path, count: int) -> list[Path]:
    """Folders of images of the experiment, all different."""
    found = sorted((setting.undisturbed / "store" / "images").iterdir())
    return [copy(found[n], folder / f"images-{n}") for n in range(count)]


def _writers(count: int, suffix: str, setting: Setting, folder: Path) -> None:
    """Every row that any of several writers made is in the file that they share."""
    sets = _image_sets(setting, folder, count)
    one, shared = folder / f"one{suffix}", folder / f"shared{suffix}"
    job = ["score", "--rewards", REWARDS, "--out"]
    _long_file(one)
    copy(one, shared)
    for images in sets:
        succeeded(fork([*job, one, images], folder))
    # Forks are at work at the same moment; processes of their own would come one by one.
    running = [start_fork([*job, shared, images], folder) for images in sets]
    for done in [process.wait() for process in running]:
        succeeded(done)
    expected, found = _rows(one), _rows(shared)
    lost = len(expected.index.difference(found.index))
    if lost:
        raise Wrong(f"{lost} of {len(expected)} rows are lost")
    if not found.equals(expected):
        raise Wrong("other rows than those of one writer after the other")


def _long_file(path: Path) -> None:
    """Scores of earlier jobs: to read and write so many takes a while, in which others come."""
    n = np.arange(ROWS)
    table = pd.DataFrame({
        "prompt": [f"prompt {i}" for i in n], "k": 0 * n, "image_sha256": "0" * 64, "reward": "old",
        "signature": "old|1", "score": n / ROWS, "file": "a.png",
    })  # fmt: skip
    if path.suffix == ".csv":
        csv.write_csv(pa.Table.from_pandas(table), path)
    else:
        table.to_parquet(path)


def _rows(path: Path) -> pd.Series:
    """Scores by what they are of, in an order of their own."""
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return table.set_index(COLUMNS)["score"].sort_index()


def jobs(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = [
        Try("two identical jobs", partial(_identical, 2, setting)),
        Try("four identical jobs", partial(_identical, 4, setting)),
        Try("two specs on one store", partial(_two_specs, setting)),
        Try("table, score and --collect beside a job", partial(_beside, setting)),
    ]
    return found[:count]


def writers(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = [
        Try(f"{n} writers of one {suffix}", partial(_writers, n, suffix, setting))
        for suffix in (".parquet", ".csv")
        for n in (2, 4)
    ]
    return found[:count]


JOBS = Row("jobs", "identical jobs at once (2, 4); two specs on one store; other commands beside "
           "them", jobs, 4)  # fmt: skip
WRITERS = Row("writers", "2 and 4 `bench score --out` at once on one file", writers, 4)
