"""Row: a disk that is full, and is then enlarged."""

import shlex
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
from commands import bench, orphans, shell
from experiment import Setting
from judges import Wrong, succeeded, told
from rows import Row, Try

SIZES = ("40k", "300k", "1500k", "6M", "15M", "25M")
"""Of the disk, from nothing at all to about a half of what the experiment takes."""
LARGE = "2G"


def can_mount(folder: Path) -> bool:
    """Whether this process may make a file system of its own."""
    place = folder / "may-mount"
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "storm", str(place)],
                          capture_output=True, check=False)  # fmt: skip
    if done.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)
    return done.returncode == 0


def _on_tmpfs(size: str, setting: Setting, folder: Path) -> None:
    out = folder / "disk"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "storm", str(out)], check=True)
    try:
        done = told(setting.ablate(folder, out), ["space|full"])
        if done.code == 0:
            raise Wrong(f"all fits into {size}: this is no test")
        subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(out)], check=True)
        succeeded(setting.ablate(folder, out))
        setting.same(out)
        succeeded(bench(["table", out / "tiny", "--check"], folder))
    finally:
        orphans(folder)
        subprocess.run(["umount", str(out)], check=True)


def _kilobytes(size: str) -> int:
    return int(size[:-1]) * {"k": 1, "M": 1024}[size[-1]]


def _with_limit(size: str, setting: Setting, folder: Path) -> None:
    """A file may not grow beyond a size: what a user without root can do."""
    out = folder / "out"
    job = shlex.join(map(str, setting.arguments(out)))
    done = told(shell(f"ulimit -f {_kilobytes(size)}; $BENCH {job}", folder))
    if done.code == 0:
        raise Wrong(f"no file is larger than {size}: this is no test")
    succeeded(setting.ablate(folder, out))
    setting.same(out)


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    if can_mount(setting.work):
        found = [Try(f"a tmpfs of {size}", partial(_on_tmpfs, size, setting)) for size in SIZES]
    else:
        found = [
            Try(f"files of at most {size}", partial(_with_limit, size, setting))
            for size in SIZES[:4]
        ]
    return found[:count]


ROW = Row("disk", "disk full (a tmpfs of 40k to 25M; without root, files of limited size), then "
          "enlarged", tries, 6)  # fmt: skip
