"""Scores of pairs that outlive the process that made them, until what they are for is written."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from trainers.files import canonical_json, clear, tell, write_atomically, writing
from trainers.input.paths import is_regular
from trainers.sealed import open_line, seal_line

Two = tuple[float, float]
"""The scores of a pair's images, float32 each; they may be no finite numbers."""


def score_key(signature: str, row: int, prompt: str, images: tuple[bytes, bytes]) -> str:
    """What decides the scores of a pair: the reward, the pair, and its place, which batch it is in.

    Args:
        signature: The reward's.
        row: The pair's row in its source.
        prompt: The prompt.
        images: The bytes of both files.

    Returns:
        32 bytes in hex.
    """
    hashes = [hashlib.sha256(image).hexdigest() for image in images]
    return hashlib.sha256(canonical_json([signature, row, prompt, *hashes]).encode()).hexdigest()


class KeptScores:
    """A file of sealed lines that only grows; :attr:`found` is what it held when it was opened."""

    def __init__(self, path: Path) -> None:
        """Read ``path``, if it is there; lines that are not as they were written are taken away."""
        self.path = path
        self.found: dict[bytes, Two] = {}
        lines = _lines(path)
        whole = [line for line in lines if line.endswith(b"\n")]  # One may have been cut short.
        kept = [(line, text) for line in whole if (text := open_line(line)) is not None]
        for _, text in kept:
            key, zero, one = json.loads(text)
            self.found[bytes.fromhex(key)] = (zero, one)
        if len(kept) < len(whole):
            tell(f"{path}: {len(whole) - len(kept)} scores are damaged: they are made again")
        if len(kept) < len(lines):
            write_atomically(path, lambda part: part.write_bytes(b"".join(s for s, _ in kept)))

    def __contains__(self, key: str) -> bool:
        """Whether the scores under a key were there."""
        return bytes.fromhex(key) in self.found

    def __getitem__(self, key: str) -> Two:
        """The scores under a key."""
        return self.found[bytes.fromhex(key)]

    def add(self, keys: Sequence[str], scores: Sequence[Two]) -> None:
        """Write scores down; they are on the disk when this returns."""
        lines = [seal_line(json.dumps([k, *two])) for k, two in zip(keys, scores, strict=True)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path), self.path.open("ab") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        """Delete the file: its scores are kept elsewhere now."""
        self.path.unlink(missing_ok=True)


def _lines(path: Path) -> list[bytes]:
    if is_regular(path):
        return path.read_bytes().splitlines(keepends=True)
    clear(path)
    return []
