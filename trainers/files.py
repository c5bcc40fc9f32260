"""Files that are either whole or absent, and their hashes."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainers.errors import UserError


def _mode() -> int:
    """Permissions of a new file by this process's umask, which can only be read by setting it."""
    os.umask(mask := os.umask(0o077))
    return 0o666 & ~mask


MODE = _mode()  # Once, and before there are threads whose files it could touch.
ROOM = 1 << 20
"""Bytes that a folder must have room for, or there is no use in beginning."""
MENDS = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EACCES: "make the folder writable, or name another one",
    errno.EPERM: "make the folder writable, or name another one",
    errno.EROFS: "name a folder that can be written to",
    errno.ENOTDIR: "name a folder, or move away the file that is in its place",
    errno.EEXIST: "name a folder, or move away the file that is in its place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "name a folder that is no link to itself",
    errno.EISDIR: "move that folder away, or give another name",
}
"""What helps where nothing can be written."""


def tell(line: str) -> None:
    """Say a line on standard error at once, from whichever process."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what keeps a path from being written to, and what helps.

    Raises:
        UserError: In place of the operating system's error, and of those of libraries that write by
            themselves and tell its number in words.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else _number(str(error))
        if number not in MENDS:
            raise
        raise UserError(
            f"{path} cannot be written ({os.strerror(number).lower()}): {MENDS[number]}, and run "
            "the same command again"
        ) from error


def _number(text: str) -> int | None:
    """The number of an operating system's error in the words of Rust or C++; None without one."""
    found = re.search(r"(?:os error|errno) (\d+)", text, re.IGNORECASE)
    return int(found[1]) if found else None


def write_atomically(
    path: Path, write: Callable[[Path], object], ready: Callable[[Path], object] | None = None
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, sync it and move it into place.

    A reader, or a run that follows a crash, sees the old content or the new one, never a part.

    Args:
        path: The file; folders above it are made.
        write: Told where to write.
        ready: Told where the whole content lies before it is moved.

    Raises:
        UserError: If nothing can be written there; the message says why, and what helps.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        handle, part = _part(path)
        try:
            write(part)
            os.fsync(handle)
            part.chmod(MODE)
            if ready is not None:
                ready(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
            os.close(handle)


def _part(path: Path) -> tuple[int, Path]:
    """A new file to be moved to ``path``, locked, so that :func:`clear_parts` leaves it alone."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with suppress(OSError):  # Where files cannot be locked, nor are they cleared.
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # Taken for a dead one's before it was locked.


def clear_parts(folder: Path) -> None:
    """Delete what killed processes were writing in a folder when they died."""
    for part in folder.glob(f".*.{'[a-z0-9_]' * 8}.part"):  # As mkstemp names them.
        with suppress(OSError):
            handle = os.open(part, os.O_RDWR | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(handle)


def clear(path: Path) -> None:
    """Delete whatever lies at a path, if anything does."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink(missing_ok=True)


def writable_folder(folder: Path) -> Path:
    """The path, once a folder is there that takes files: asked before any work, not after it.

    Raises:
        UserError: If it does not; the message says why, and what helps.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(ROOM))
    return folder


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda part: part.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8 with Unix line ends."""
    write_bytes(path, text.encode())


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
