"""Locks of one machine, and of several that share a disk, on which ``flock`` may hold nothing.

Another machine is played by a process that calls itself so, on a disk that knows no ``flock``.
"""

import errno
import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.stages.store import Store
from trainers import locks
from trainers.errors import UserError
from trainers.locks import Lease, locked

HOLDER = """
import sys, time
from pathlib import Path
from trainers.locks import locked
with locked(Path(sys.argv[1])):
    print("inside", flush=True)
    time.sleep(120)
"""


def test_who_holds_a_lock_is_told_and_a_dead_holder_holds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    lock = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "inside\n"
        threading.Timer(0.5, holder.kill).start()
        with locked(lock):
            pass
    told = capfd.readouterr().err
    assert re.fullmatch(
        rf"waiting for {lock}, which is held by process {holder.pid} on \S+ since \S+, and free as "
        r"soon as that ends\n",
        told,
    )
    with locked(lock):  # Nobody to wait for.
        pass
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".lock")
    with (
        pytest.raises(UserError, match=r"\.lock: expected a file, got a"),
        locked(tmp_path / ".lock"),
    ):
        pass


OTHER = """
import errno, os, sys, time
from pathlib import Path
from trainers import locks

def none(handle, operation):
    raise OSError(errno.ENOTSUP, "")

locks.fcntl.flock = none
locks._machine = lambda: sys.argv[2]
locks.BEAT, locks.DEAD, locks.PATIENCE = 0.1, 3.0, 0.1
lock = Path(sys.argv[1])
"""
HOLD = (
    OTHER
    + """
with locks.locked(lock):
    print("inside", flush=True)
    time.sleep(float(sys.argv[3]))
"""
)
COUNT = (
    OTHER
    + """
inside = lock.with_name("inside")
for _ in range(15):
    with locks.locked(lock):
        handle = os.open(inside, os.O_CREAT | os.O_EXCL)  # Fails if somebody else is inside.
        count = int(lock.with_name("count").read_text())
        time.sleep(0.002)
        lock.with_name("count").write_text(str(count + 1))
        os.close(handle)
        inside.unlink()
"""
)


def other(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.1)
    monkeypatch.setattr(locks, "DEAD", 3.0)
    monkeypatch.setattr(locks, "PATIENCE", 0.1)


def test_one_of_many_machines_is_inside(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    several = [other(COUNT, tmp_path / ".lock", f"machine {number}") for number in range(3)]
    assert [each.wait(300) for each in several] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "45"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "count"]


@pytest.mark.usefixtures("impatient")
def test_a_living_owner_elsewhere_is_waited_for_and_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with other(HOLD, tmp_path / ".lock", "elsewhere", 5) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "inside\n"
        began = time.monotonic()
        with locked(tmp_path / ".lock"):  # Longer than DEAD: signs of life are seen.
            assert time.monotonic() - began > 4
    assert f"which is held by process {holder.pid} on " in capfd.readouterr().err


@pytest.mark.usefixtures("impatient")
def test_a_dead_owner_elsewhere_is_replaced_after_a_while(tmp_path: Path) -> None:
    with other(HOLD, tmp_path / ".lock", "elsewhere", 100) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "inside\n"
        holder.kill()
    began = time.monotonic()
    with locked(tmp_path / ".lock"):
        assert 2.5 < time.monotonic() - began < 60
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.usefixtures("impatient")
def test_clocks_of_machines_may_differ(tmp_path: Path) -> None:
    with other(HOLD, tmp_path / ".lock", "elsewhere", 4) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "inside\n"
        stop = threading.Event()

        def other_clock() -> None:
            while not stop.wait(0.01):
                for path in tmp_path.glob(".lock.lease-*"):
                    os.utime(path, (0, 0)) if path.exists() else None

        threading.Thread(target=other_clock, daemon=True).start()
        began = time.monotonic()
        with locked(tmp_path / ".lock"):
            assert time.monotonic() - began > 3
        stop.set()


def test_a_dead_owner_of_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    lease = Lease(tmp_path / ".lock")
    assert lease.make()  # Its process died, and the kernel freed its lock.
    began = time.monotonic()
    with locked(tmp_path / ".lock"):
        assert time.monotonic() - began < 30
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_who_was_taken_for_dead_records_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("kind", "0" * 64) as folder:
        store.claim("kind", "0" * 64, {})
        (folder / "output").write_text("half")
        for path in folder.glob(".lock.lease-*"):
            path.unlink()  # As whoever takes over does.
        with pytest.raises(UserError, match="was taken over by another process"):
            store.record("kind", "0" * 64, {}, 1.0)
    assert not (folder / "status.json").exists()


def test_a_disk_without_flock_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path / ".lock"):
        assert len(list(tmp_path.glob(".lock.lease-*"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
