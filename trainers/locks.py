"""Locks between processes, of one machine or of several that share a disk.

Two things make a lock. The kernel's, by ``flock``, which it frees when a process ends, however it
did: it holds within a machine, on some shared disks between machines, and on others not at all. And
a lease, a file beside the lock that its owner alone writes: whoever finds none that is alive makes
its own, looks again, and holds the lock only if there is still no other. Of two that do so at once
at least one sees the other, and yields. That needs nothing of a disk but that a file which was made
is in the folder for all, and what was written is read by whoever opens the file thereafter.

The owner of a lease changes what it says every ``BEAT`` seconds. One that stays as it is for
``DEAD`` seconds, by the clock of whoever looks, is of an owner that has died, and is taken away.
"""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from platform import node
from uuid import uuid4

from trainers.errors import UserError
from trainers.files import tell, writing
from trainers.input.paths import regular

PATIENCE = 1.5
"""Seconds of waiting for a lock after which it is told who holds it."""
BEAT = 15.0
"""Seconds between two signs of life."""
DEAD = 90.0
"""Seconds without one after which an owner on another machine is taken to have died."""
NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)
"""Errors of ``flock`` on a disk that knows no locks."""


def _machine() -> str:
    """What identifies the running kernel, within which ``flock`` holds."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return node()


class Lease:
    """The sign of life of whoever holds a lock."""

    def __init__(self, lock: Path) -> None:
        """Not held yet."""
        self._lock = lock
        self._path = lock.with_name(f"{_prefix(lock)}{uuid4().hex}")
        self._done = threading.Event()
        self._made = False
        self._beats = 0

    def check(self) -> None:
        """Refuse to go on if somebody else has the lock by now.

        Raises:
            UserError: If this process has given no sign of life for so long that it was replaced.
        """
        if self._made and not self._path.exists():
            raise UserError(
                f"{self._lock} was taken over by another process, since this one gave no sign of "
                f"life for {DEAD:.0f} s: what it did is left to that one"
            )

    def make(self) -> bool:
        """Write it for the first time; False if the disk takes no file more."""
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError:
            return False
        os.close(handle)
        self._made = True
        self._write()
        return True

    def drop(self) -> None:
        """Take it away."""
        self._done.set()
        with suppress(OSError):
            self._path.unlink()

    def keep(self) -> None:
        """Give signs of life from now on."""
        threading.Thread(target=self._beat, daemon=True).start()

    def others(self) -> dict[Path, str]:
        """What the other leases of the lock say."""
        found: dict[Path, str] = {}
        for path in self._lock.parent.glob(f"{_prefix(self._lock)}*"):
            if path != self._path:
                with suppress(FileNotFoundError):
                    found[path] = path.read_text(encoding="utf-8", errors="replace")
        return found

    def _write(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        said = f"process {os.getpid()} on {node()} at {now}\n{_machine()}\n{self._beats}\n"
        with suppress(OSError):  # On a full disk it is empty, and does for an hour or two.
            handle = os.open(self._path, os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(handle, said.encode())
                os.fsync(handle)
            finally:
                os.close(handle)

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            if not self._path.exists():
                return
            self._beats += 1
            self._write()


def _prefix(lock: Path) -> str:
    return f".{lock.name.lstrip('.')}.lease-"


@contextmanager
def locked(lock: Path) -> Iterator[Lease]:
    """Hold a lock file, which is made if need be, against other processes; waits for its holder.

    It is told who that is.

    Raises:
        UserError: If there is something else in its place, or it cannot be written.
    """
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        if lock.exists():
            regular(lock)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        alone_here = _wait(handle, lock)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):  # A full disk can be locked, too.
            os.pwrite(handle, f"process {os.getpid()} on {node()} since {now}\n".encode(), 0)
        lease = _take(lock, alone_here)
        try:
            yield lease
        finally:
            lease.drop()
        with suppress(OSError):
            os.truncate(handle, 0)
    finally:
        os.close(handle)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock, or one of another machine has given a sign of life lately."""
    if not lock.is_file():
        return False
    handle = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    finally:
        os.close(handle)
    leases = lock.parent.glob(f"{_prefix(lock)}*")
    with suppress(FileNotFoundError):
        return any(time.time() - path.stat().st_mtime < DEAD for path in leases)
    return False


def _wait(handle: int, lock: Path) -> bool:
    """Wait for the kernel's lock; False if it gives none on this disk."""
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() - began > PATIENCE:
                break
            time.sleep(0.01)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
    holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
    _tell(lock, holder)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return True


def _tell(lock: Path, holder: str) -> None:
    tell(f"waiting for {lock}, which is held by {holder}, and free as soon as that ends")


def _take(lock: Path, alone_here: bool) -> Lease:
    """A lease of the lock, once there is no other that is alive.

    Args:
        lock: The lock.
        alone_here: Whether the kernel's lock is held: then the owner of another lease of this
            machine has died.
    """
    seen: dict[Path, tuple[str, float]] = {}
    began, told = time.monotonic(), False

    def alive(lease: Lease) -> dict[Path, str]:
        now = time.monotonic()
        found: dict[Path, str] = {}
        for path, said in lease.others().items():
            if path not in seen or seen[path][0] != said:
                seen[path] = (said, now)
            here = alone_here and _machine() in said.splitlines()
            if not here and now - seen[path][1] < DEAD:
                found[path] = said
        return found

    while True:
        lease = Lease(lock)
        holders = alive(lease)
        if not holders:
            if not lease.make():
                return lease  # Nothing can be written here, by others neither.
            holders = alive(lease)
            if not holders:
                for path in lease.others():
                    path.unlink(missing_ok=True)
                lease.keep()
                return lease
            lease.drop()
        if not told and time.monotonic() - began > PATIENCE:
            told = True
            _tell(lock, (next(iter(holders.values())).splitlines() or ["another process"])[0])
        time.sleep(0.05 + os.urandom(1)[0] / 512)  # Unlike another's, or two yield for ever.
