"""Artefacts by content: one folder per stage, done only when its hashes are recorded.

    <root>/<kind>/<first 16 hex digits of the id>/
        status.json   id, inputs, hashes of the outputs, seconds; written last
        ...           the outputs

An artefact counts as done only if its own files and the artefacts it was made from are the ones
that were recorded. So a cache entry can be missing, but it cannot be somebody else's. A file that
was found as recorded is not hashed again while its size and its time of change stay the same.

Pieces of artefacts that others are made of, too, lie in <root>/pool, by what decides them.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers import locks
from trainers.data.cache import is_whole
from trainers.errors import UserError
from trainers.files import (
    canonical_json,
    clear,
    sha256_file,
    sha256_text,
    tree_hashes,
    write_text,
)
from trainers.input.paths import is_regular
from trainers.input.text import read_json
from trainers.sealed import SEALS, Seals, open_record, seal_record

STATUS = "status.json"
LOCK = ".lock"
INPUTS = ".inputs"
"""Digests of what the files in a folder were, or are being, made from; see :meth:`Store.claim`."""
CACHE = "encodings"
"""Folder of the store that holds encodings."""
VERIFIED = ".verified.json"
"""What is remembered of the files in a folder; see :class:`_Memory`."""


@dataclass(frozen=True)
class Status:
    """What is on record for a finished artefact."""

    id: str
    inputs: dict[str, str]
    """Digests of the artefacts it was made from, by id."""
    outputs: dict[str, str]
    """sha256 by file."""
    seconds: float

    @property
    def digest(self) -> str:
        """One hash over all outputs."""
        return sha256_text(canonical_json(self.outputs))


class Store:
    """A folder of artefacts."""

    def __init__(self, root: Path, suspicious: bool = False) -> None:
        """A store.

        Args:
            root: Made when something is first stored.
            suspicious: Hash every file once, whatever another machine has noted of it.
        """
        self.root = root
        self._suspicious = suspicious
        self._verified: dict[str, Status] = {}
        self._held: dict[str, locks.Lease] = {}

    def folder(self, kind: str, identity: str) -> Path:
        """Where an artefact lies, or would lie."""
        return self.root / kind / identity[:16]

    def pool(self, kind: str) -> Path:
        """Where stages of a kind keep pieces for each other; it can be deleted, and made again."""
        return self.root / "pool" / kind

    def status(self, kind: str, identity: str) -> Status | None:
        """The record of an artefact, or None if it is not done.

        What was found whole once is not looked at again by this object.

        Raises:
            UserError: If the record or a recorded file is damaged; the message says the mend.
        """
        if identity in self._verified:
            return self._verified[identity]
        folder = self.folder(kind, identity)
        if not (folder / STATUS).exists():
            return None
        status = _read(folder)
        if status.id != identity:
            raise _damaged(folder, f"{folder / STATUS} belongs to {status.id[:16]}")
        _check(folder, status, None if self._suspicious else _Memory(folder))
        self._verified[identity] = status
        return status

    def verify(self) -> int:
        """Hash all files of all artefacts, whatever is remembered; returns how many they are.

        Raises:
            UserError: If one is damaged; the message says the mend.
        """
        folders = sorted(path.parent for path in self.root.glob(f"*/*/{STATUS}"))
        for folder in folders:
            _check(folder, _read(folder))
        return len(folders)

    def verify_pools(self) -> int:
        """Hash what stages keep for each other, and encodings; returns how many files they are.

        Raises:
            UserError: If one is not as it was written; the message says the mend.
        """
        pieces = 0
        for path in sorted(path for path in self.pool("").rglob("*") if path.name[0] != "."):
            for seals in (Seals.beside(path), Seals(path.with_name(SEALS))):
                if is_regular(path) and seals.names(path.name):
                    pieces += 1
                    if seals.sha256(path) is None:
                        raise _spoilt(path)
        for path in sorted((self.root / CACHE).rglob("*.safetensors")):
            pieces += 1
            if not is_whole(path):
                raise _spoilt(path)
        return pieces

    def forget(self, identity: str) -> None:
        """Look at an artefact anew when it is asked for next: it is being made again."""
        self._verified.pop(identity, None)

    def claim(self, kind: str, identity: str, inputs: dict[str, str], resume: bool = False) -> None:
        """Make an artefact's folder ready for a run on ``inputs``; hold its lock.

        What an interrupted run on the same inputs left stays if that is to be taken up; what is
        there otherwise is cleared away.
        """
        self.forget(identity)
        folder = self.folder(kind, identity)
        mark, text = folder / INPUTS, canonical_json(inputs)
        if resume and is_regular(mark) and mark.read_bytes() == text.encode():
            return
        for path in sorted(folder.iterdir(), key=lambda path: path.name != STATUS):
            if not path.name.startswith(LOCK):
                clear(path)
        write_text(mark, text)

    def record(self, kind: str, identity: str, inputs: dict[str, str], seconds: float) -> Status:
        """Hash what lies in an artefact's folder and declare it done.

        Raises:
            UserError: If the lock that was held was lost to another process meanwhile.
        """
        folder = self.folder(kind, identity)
        status = Status(identity, inputs, _outputs(folder), round(seconds, 3))
        if identity in self._held:
            self._held[identity].check()
        said = seal_record(vars(status))
        write_text(folder / STATUS, json.dumps(said, indent=1, sort_keys=True) + "\n")
        return status

    @contextlib.contextmanager
    def lock(self, kind: str, identity: str) -> Iterator[Path]:
        """Hold an artefact against other processes; waits for whoever holds it now."""
        folder = self.folder(kind, identity)
        with locks.locked(folder / LOCK) as lease:
            self._held[identity] = lease
            try:
                yield folder
            finally:
                del self._held[identity]

    def __reduce__(self) -> tuple[type["Store"], tuple[Path, bool]]:
        """Another process looks for itself."""
        return Store, (self.root, self._suspicious)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold the folder of an artefact, which is made if need be."""
    with locks.locked(folder / LOCK):
        yield folder


def _read(folder: Path) -> Status:
    try:
        said = read_json(folder / STATUS)
        if "sha256" in said:  # It was not recorded always.
            said = open_record(said) or {}
        status = Status(**said)
        if not isinstance(status.inputs, dict) or not isinstance(status.outputs, dict):
            raise TypeError
        return status
    except (UserError, TypeError) as error:
        raise _damaged(folder, f"{folder / STATUS} cannot be read") from error


def _outputs(folder: Path, digest: Callable[[Path], str] = sha256_file) -> dict[str, str]:
    return {k: v for k, v in tree_hashes(folder, digest).items() if k != STATUS}


def _check(folder: Path, status: Status, memory: "_Memory | None" = None) -> None:
    """Compare the files of an artefact with its record. What is remembered never tells damage."""
    if memory is not None and _outputs(folder, memory.digest) == status.outputs:
        memory.save()
        return
    found = _outputs(folder)
    if found != status.outputs:
        changed = sorted(k for k, _ in set(found.items()) ^ set(status.outputs.items()))
        raise _damaged(folder, f"{folder / changed[0]} was changed or lost")


def _damaged(folder: Path, fault: str) -> UserError:
    return UserError(
        f"the store is damaged: {fault}; delete that folder (rm -r {folder}) and run the same "
        "command again"
    )


def _spoilt(path: Path) -> UserError:
    return UserError(
        f"the store is damaged: {path} is not what was written there; delete it (rm {path}): it is "
        "made again where it is needed"
    )


class _Memory:
    """Hashes of the files of an artefact as they were read last, for those that have not changed.

    A file has not if its size and its time of change are those of then, and that time lies before
    the moment when reading began: any change since would have given the file a later one.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is known where the memory is missing or damaged: it can be made again."""
        self._folder = folder
        self._known: dict[str, str] = {}
        with contextlib.suppress(UserError, ValueError, TypeError):
            self._known = dict(read_json(folder / VERIFIED))
        self._seen: dict[str, str] = {}
        self._began: int | None = None

    def digest(self, path: Path) -> str:
        """Hex sha256 of a file, which is read unless that of last time is sure to hold."""
        stat = path.stat()
        mark = f"{path.relative_to(self._folder)} {stat.st_size} {stat.st_mtime_ns}"
        if mark in self._known:
            self._seen[mark] = self._known[mark]
            return self._known[mark]
        if self._began is None:
            self._began = _clock(self._folder)
        digest = sha256_file(path)
        if stat.st_mtime_ns < self._began:
            self._seen[mark] = digest
        return digest

    def save(self) -> None:
        """Remember what was seen, if that is news and the folder can be written to."""
        if self._seen == self._known or not os.access(self._folder, os.W_OK):
            return
        with contextlib.suppress(UserError):  # A full disk, say: it is only a memory.
            write_text(self._folder / VERIFIED, json.dumps(self._seen, indent=1) + "\n")


def _clock(folder: Path) -> int:
    """Now in ns, as its file system would date a change in a folder; 0 if it takes none."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return 0


def as_json(value: Any) -> str:
    """JSON for people: indented, in the order given, with a newline at the end."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
