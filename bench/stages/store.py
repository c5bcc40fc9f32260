"""Artefacts by content: one folder per stage, done only when its hashes are recorded.

    <root>/<kind>/<first 16 hex digits of the id>/
        status.json   id, inputs, hashes of the outputs, seconds; written last
        ...           the outputs

An artefact counts as done only if its own files and the artefacts it was made from are the ones
that were recorded. So a cache entry can be missing, but it cannot be somebody else's.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text, tree_hashes, write_text

STATUS = "status.json"
LOCK = ".lock"
INPUTS = ".inputs"
"""Digests of what the files in a folder were, or are being, made from; see :meth:`Store.claim`."""


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

    def __init__(self, root: Path) -> None:
        """``root`` is made when something is first stored."""
        self.root = root
        self._verified: dict[str, Status] = {}

    def folder(self, kind: str, identity: str) -> Path:
        """Where an artefact lies, or would lie."""
        return self.root / kind / identity[:16]

    def status(self, kind: str, identity: str) -> Status | None:
        """The record of an artefact, or None if it is not done.

        What was found whole once is not hashed again by this object.

        Raises:
            UserError: If the record or a recorded file is damaged; the message says the mend.
        """
        folder = self.folder(kind, identity)
        path = folder / STATUS
        if identity in self._verified:
            return self._verified[identity]
        if not path.exists():
            return None
        mend = f"delete that folder (rm -r {folder}) and run the same command again"
        try:
            status = Status(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise UserError(f"the store is damaged: {path} cannot be read; {mend}") from error
        if status.id != identity:
            raise UserError(f"the store is damaged: {path} belongs to {status.id[:16]}; {mend}")
        found = {k: v for k, v in tree_hashes(folder).items() if k != STATUS}
        if found != status.outputs:
            changed = sorted(k for k, _ in set(found.items()) ^ set(status.outputs.items()))
            lost = folder / changed[0]
            raise UserError(f"the store is damaged: {lost} was changed or lost; {mend}")
        self._verified[identity] = status
        return status

    def forget(self, identity: str) -> None:
        """Look at an artefact anew when it is asked for next: it is being made again."""
        self._verified.pop(identity, None)

    def claim(self, kind: str, identity: str, inputs: dict[str, str]) -> None:
        """Make an artefact's folder ready for a run on ``inputs``; hold its lock.

        What an interrupted run on the same inputs left stays, to be taken up; what was made from
        others is cleared away.
        """
        self.forget(identity)
        folder = self.folder(kind, identity)
        mark, text = folder / INPUTS, canonical_json(inputs)
        if mark.is_file() and mark.read_text() == text:
            return
        (folder / STATUS).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        write_text(mark, text)

    def record(self, kind: str, identity: str, inputs: dict[str, str], seconds: float) -> Status:
        """Hash what lies in an artefact's folder and declare it done."""
        folder = self.folder(kind, identity)
        outputs = {k: v for k, v in tree_hashes(folder).items() if k != STATUS}
        status = Status(identity, inputs, outputs, round(seconds, 3))
        write_text(folder / STATUS, json.dumps(vars(status), indent=1, sort_keys=True) + "\n")
        return status

    @contextlib.contextmanager
    def lock(self, kind: str, identity: str) -> Iterator[Path]:
        """Hold an artefact against other processes; waits for whoever holds it now."""
        folder = self.folder(kind, identity)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield folder


def as_json(value: Any) -> str:
    """JSON for people: indented, in the order given, with a newline at the end."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
