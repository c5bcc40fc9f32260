"""Files that are either whole or absent, and their hashes."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def _mode() -> int:
    """Permissions of a new file by this process's umask, which can only be read by setting it."""
    os.umask(mask := os.umask(0o077))
    return 0o666 & ~mask


MODE = _mode()  # Once, and before there are threads whose files it could touch.


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it and move it into place.

    A reader, or a run that follows a crash, sees the old content or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.chmod(MODE)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8 with Unix line ends."""
    write_atomically(path, lambda part: part.write_bytes(text.encode()))


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, which is made if need be, against other processes; waits for its holder."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: If the value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def as_json(value: Any) -> str:
    """JSON for people: indented, in the order given, with a newline at the end."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def sha256_text(text: str) -> str:
    """Hex sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_hashes(folder: Path, digest: Callable[[Path], str] = sha256_file) -> dict[str, str]:
    """sha256 of every file below ``folder`` by its POSIX path, hidden files left out.

    What lies behind a symbolic link counts as if it lay in its place, be it a file or a folder.
    Below what is no folder, there is nothing. ``digest`` may know the hash of a file already.
    """
    files = sorted(_files(folder, (folder.resolve(),))) if folder.is_dir() else []
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def _files(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Files below a folder; a link back to a folder ``above``, whose files count, is not taken."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and (real := path.resolve()) not in above:
            yield from _files(path, (*above, real))
