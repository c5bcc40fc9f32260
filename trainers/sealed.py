"""Files that are taken up again only if they are, to the byte, what was written there.

Their sha256 lie beside them in a hidden file, in the lines of ``sha256sum``. A line is added before
the file that it speaks of is moved into place: whenever a process is killed, whatever whole file is
there has its line. One that is unlike all of its lines was damaged, exchanged or left by another.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainers.files import (
    canonical_json,
    clear,
    sha256_file,
    sha256_text,
    tell,
    write_atomically,
    writing,
)
from trainers.input.paths import is_regular

SEALS = ".sha256"
"""Seals of all files of a folder, where there are many."""
_LINE = re.compile(rb"^([0-9a-f]{64})  ([^\n]+)$", re.MULTILINE)


class Seals:
    """A file with the sha256 of other files of its folder; it only grows."""

    def __init__(self, path: Path) -> None:
        """``path`` is made when something is first written."""
        self.path = path
        self._known: set[tuple[bytes, bytes]] = set()

    @staticmethod
    def beside(path: Path) -> "Seals":
        """The seals of one file alone."""
        return Seals(path.with_name(f".{path.name}.sha256"))

    def write(self, path: Path, write: Callable[[Path], object]) -> str:
        """Write a file atomically, and seal it; gives its sha256."""
        digest = ""

        def seal(part: Path) -> None:
            nonlocal digest
            digest = sha256_file(part)
            self._add(digest, path.name)

        write_atomically(path, write, seal)
        return digest

    def sha256(self, path: Path) -> str | None:
        """Hex sha256 of a file that is there as it was written; None otherwise."""
        if not is_regular(path):
            return None
        # The file first: its seal is older, whoever replaces it meanwhile.
        digest = sha256_file(path)
        return digest if self.knows(digest, path.name) else None

    def knows(self, digest: str, name: str) -> bool:
        """Whether a file of this name was written that had this sha256."""
        entry = (digest.encode(), os.fsencode(name))
        if entry not in self._known:
            self._known = set(self._read())
        return entry in self._known

    def names(self, name: str) -> bool:
        """Whether any file of this name was written."""
        return any(known == os.fsencode(name) for _, known in self._read())

    def _read(self) -> list[tuple[bytes, bytes]]:
        return _LINE.findall(self.path.read_bytes()) if is_regular(self.path) else []

    def _add(self, digest: str, name: str) -> None:
        if (digest.encode(), os.fsencode(name)) in self._known:
            return
        if not is_regular(self.path):
            clear(self.path)
        with self.path.open("ab+") as stream:
            if stream.seek(0, os.SEEK_END) and not _ends_a_line(stream.fileno()):
                stream.write(b"\n")  # One was cut short.
            stream.write(digest.encode() + b"  " + os.fsencode(name) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._known.add((digest.encode(), os.fsencode(name)))


def _ends_a_line(handle: int) -> bool:
    return os.pread(handle, 1, os.fstat(handle).st_size - 1) == b"\n"


def seal_line(text: str) -> bytes:
    """A line of a file that only grows, sealed: 16 hex digits of its sha256, and the text."""
    return f"{sha256_text(text)[:16]} {text}\n".encode()


def open_line(line: bytes) -> str | None:
    """The text of a sealed line; None if it is not as it was written."""
    seal, _, text = line.decode(errors="replace").rstrip("\n").partition(" ")
    return text if seal == sha256_text(text)[:16] else None


def seal_record(said: Mapping[str, Any]) -> dict[str, Any]:
    """A record for a JSON file, with the sha256 of what else it says."""
    return {"sha256": sha256_text(canonical_json(said)), **said}


def open_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a sealed record says; None if it is not as it was written."""
    said = {key: value for key, value in record.items() if key != "sha256"}
    return said if record == seal_record(said) else None


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically, with its seal beside it."""
    Seals.beside(path).write(path, write)


def take(path: Path) -> bool:
    """Whether a file with its seal beside it is there to be taken up.

    One that is not as it was written is told of and cleared away, to be made again.
    """
    if Seals.beside(path).sha256(path) is not None:
        return True
    if path.exists() or path.is_symlink():
        tell(f"{path} is not what was written there (its sha256 differs): it is made again")
    drop(path)
    return False


def drop(path: Path) -> None:
    """Delete a file and its seal."""
    clear(path)
    clear(Seals.beside(path).path)


def copy(source: Path, target: Path) -> None:
    """Give a file and its seal a second place; the bytes are shared where they can be."""
    drop(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target):
        shutil.copyfile(Seals.beside(source).path, Seals.beside(target).path)
        try:
            os.link(source, target)
        except OSError:
            write_atomically(target, lambda part: shutil.copyfile(source, part))


def move(source: Path, target: Path) -> None:
    """Move a file and its seal; whenever this stops, whichever file is there has its seal."""
    copy(source, target)
    drop(source)
