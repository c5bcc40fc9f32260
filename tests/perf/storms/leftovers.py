"""Row: leftovers, exchanged folders, copies and locks, found by the next ``bench ablate``."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from commands import fork
from experiment import Setting, copy, differ, results, spec
from judges import Wrong, follow, refused, succeeded, told
from rows import Row, Try
from unfinished import UNTIL

SOON = 30.0
"""Seconds within which whoever waits for a lock says so, its start on a busy machine included."""
HOLD = (
    "import fcntl, sys; s = open(sys.argv[1], 'a'); fcntl.flock(s, fcntl.LOCK_EX); "
    "print('held', flush=True); sys.stdin.read()"
)
"""What a process does that holds a lock until its input ends."""


def _held(of: str, setting: Setting, folder: Path) -> None:
    """Whoever waits for a lock says who holds it, and goes on when it is free."""
    out = copy(setting.interrupted(of, UNTIL[of]), folder / "out")
    locks = [path for path in (out / "store").rglob("*.lock") if not _done(path.parent)]
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
        for lock in locks
    ]  # fmt: skip
    running = setting.start(folder, out, workers=1)
    try:
        for holder in holders:
            assert holder.stdout is not None
            holder.stdout.readline()
        began, pids = time.monotonic(), [str(holder.pid) for holder in holders]
        while running.alive() and not any(pid in running.stderr() for pid in pids):
            if time.monotonic() - began > SOON:
                raise Wrong(f"waits for a lock, and does not say within {SOON:.0f} s who holds it")
            time.sleep(0.1)
        for holder in holders:
            holder.communicate()
        succeeded(running.wait())
        setting.same(out)
    finally:
        running.kill()
        for holder in holders:
            holder.kill()
            holder.wait()


def _done(folder: Path) -> bool:
    return (folder / "status.json").exists()


def _goes_on(prepare: Callable[[Path], object], setting: Setting, folder: Path) -> None:
    """After a change to a finished store: the same bytes, or a line whose mend leads there."""
    out = setting.finished(folder)
    prepare(out)
    done = follow(lambda: setting.ablate_in_fork(folder, out), folder)
    if done.code == 0:
        setting.same(out, networks_too=False)


def _parts(out: Path) -> None:
    """What processes that were killed while they wrote leave behind."""
    for path in [*(out / "tiny").iterdir(), *(out / "store").rglob("*.*")]:
        if path.is_file():
            (path.parent / f".{path.name}.abcdefgh.part").write_bytes(b"half of it")


def _swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def _exchange(kind: str, out: Path) -> None:
    """Exchange the folders of two stages."""
    _swap(*sorted((out / "store" / kind).iterdir())[:2])


def _exchange_files(kind: str, name: str, out: Path) -> None:
    """Exchange files of two stages."""
    first, second, *_ = sorted((out / "store" / kind).iterdir())
    _swap(first / name, second / name)


def _older_record(out: Path) -> None:
    """A record that lacks what it should say."""
    path = next((out / "store" / "images").glob("*/status.json"))
    path.write_text(json.dumps({"id": json.loads(path.read_text())["id"]}))


def _emptied(kind: str, out: Path) -> None:
    for folder in (out / "store" / kind).iterdir():
        shutil.rmtree(folder)
        folder.mkdir()


def _linked(out: Path) -> None:
    """A store that lies on another disk, to which a link leads."""
    moved = out.parent / "elsewhere"
    (out / "store").rename(moved)
    (out / "store").symlink_to(moved)


def _without_times(out: Path) -> None:
    """A copy that a plain ``cp -r`` made: new times, no hard links."""
    moved = out.with_name("moved")
    out.rename(moved)
    subprocess.run(["cp", "-r", str(moved), str(out)], check=True)
    shutil.rmtree(moved)


def _replaced(path: str, out: Path) -> None:
    """A file in the place of a folder."""
    shutil.rmtree(out / path)
    (out / path).write_text("a file")


PREPARED: dict[str, Callable[[Path], object]] = {
    "halves of files everywhere": _parts,
    "two networks' folders exchanged": partial(_exchange, "train"),
    "two image sets exchanged": partial(_exchange, "images"),
    "two stages of scores exchanged": partial(_exchange, "scores"),
    "two records exchanged": partial(_exchange_files, "train", "status.json"),
    "two tables of scores exchanged": partial(_exchange_files, "scores", "scores.parquet"),
    "two indices of images exchanged": partial(_exchange_files, "images", "images.jsonl"),
    "a record that lacks keys": _older_record,
    "folders of networks emptied": partial(_emptied, "train"),
    "folders of images emptied": partial(_emptied, "images"),
    "the pool lost": lambda out: shutil.rmtree(out / "store" / "pool"),
    "the store behind a link": _linked,
    "a plain copy": _without_times,
    "a file as the store": partial(_replaced, "store"),
    "a file as the result folder": partial(_replaced, "tiny"),
    "a file as the pool": partial(_replaced, "store/pool"),
    "a file as the folder of networks": partial(_replaced, "store/train"),
    "a foreign folder in the store": lambda out: (out / "store" / "mine" / "x").mkdir(parents=True),
    "a foreign file in the result folder": lambda out: (out / "tiny" / "notes").write_text("mine"),
}


def _elsewhere(setting: Setting, folder: Path) -> None:
    """A store that was copied serves as it is: nothing runs anew."""
    out = setting.finished(folder)
    shutil.rmtree(out / "tiny")
    done = succeeded(setting.ablate_in_fork(folder, out))
    if "[1/" in done.stderr:
        raise Wrong("stages of a store that was copied ran anew")
    setting.same(out)


def _of_another_spec(setting: Setting, folder: Path) -> None:
    """Results of another spec are not written over."""
    out = setting.finished(folder)
    for change in ("primary=mini-clip", "generate.guidance=5", "seeds=[1]"):
        done = setting.ablate_in_fork(folder, out)
        told(done)
        other = [*setting.arguments(out, 1), "--set", change]
        refused(fork(other, folder), "another")
    differ(results(setting.undisturbed / "tiny"), results(out / "tiny"))


def _named_store(setting: Setting, folder: Path) -> None:
    """A spec whose results would go into the store."""
    path = spec(folder, name="store")
    refused(fork(["ablate", path, "--out", folder / "out"], folder), "store")


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = [
        Try("a store that was copied", partial(_elsewhere, setting)),
        Try("results of another spec", partial(_of_another_spec, setting)),
        Try("a spec that is called store", partial(_named_store, setting)),
    ]
    found += [Try(f"locks of others while {name}", partial(_held, name, setting)) for name in UNTIL]
    found += [Try(name, partial(_goes_on, prepare, setting)) for name, prepare in PREPARED.items()]
    return found[:count]


ROW = Row("leftovers", "leftovers, exchanged folders, copies and locks in `bench ablate`", tries,
          100)  # fmt: skip
