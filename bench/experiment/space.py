"""What takes space in a store, which results refer to it, and what nothing refers to.

A result refers to the stages that its manifest names. Beside these lie pieces that stages keep for
each other: images of a network, which are the very files of image sets; scores by signature; ends
of runs by the encodings they learnt from; and encodings.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.experiment.folder import STORE
from bench.results.files import MANIFEST, OLD_PROTOCOL, PROTOCOL, SCORES, read_manifest
from bench.results.manifest import Manifest
from bench.stages.store import CACHE, LOCK, STATUS, Store
from trainers.errors import UserError
from trainers.files import clear, sha256_text, writing
from trainers.locks import is_held, locked
from trainers.sealed import drop

NAME = re.compile("[0-9a-f]{16}")
"""Of the folder of an artefact."""


@dataclass(frozen=True)
class Piece:
    """What is kept or deleted as a whole."""

    kind: str
    """Of the stage; of what stages share, ``shared`` before it."""
    path: Path
    files: dict[int, int]
    """Bytes by inode: a file of several names takes its space once."""
    owners: frozenset[str]
    """Results that refer to it."""
    changed: float
    """When its newest file was last changed, in seconds since 1970."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(self.files.values())


def total(pieces: Sequence[Piece]) -> int:
    """Bytes of some pieces together."""
    return sum({inode: size for piece in pieces for inode, size in piece.files.items()}.values())


def freed(gone: Sequence[Piece], pieces: Sequence[Piece]) -> int:
    """Bytes that are free once some of the pieces are gone: no other has the same files."""
    paths = {piece.path for piece in gone}
    left = [piece for piece in pieces if piece.path not in paths]
    return total(pieces) - total(left)


def pieces(out: Path) -> list[Piece]:
    """Every piece of the store below ``out``, with the results beside it that refer to it.

    Raises:
        UserError: If there is no store, or a result does not say what it refers to.
    """
    store = Store(out / STORE)
    if not store.root.is_dir():
        raise UserError(f"{out} holds no store: give the --out of a 'bench ablate'")
    manifests = {folder.name: read_manifest(folder) for folder in _results(out)}
    owners: dict[str, set[str]] = {}
    for name, manifest in manifests.items():
        for stage in manifest.stages:
            owners.setdefault(f"{stage.kind}/{stage.id[:16]}", set()).add(name)
    found = [
        _piece(path.parent.name, path, owners.get(f"{path.parent.name}/{path.name}", set()))
        for path in sorted(store.root.glob("*/*"))
        if NAME.fullmatch(path.name) and path.parent.name not in ("pool", CACHE)
    ]
    return [*found, *_shared(store, manifests, found)]


def _results(out: Path) -> list[Path]:
    """Whatever may be a result, of an earlier schema or damaged, too: it may need the store."""
    names = (SCORES, PROTOCOL, MANIFEST, OLD_PROTOCOL)
    return sorted({path.parent for name in names for path in out.glob(f"*/{name}")})


def _piece(kind: str, path: Path, owners: set[str]) -> Piece:
    below = [path, *path.rglob("*")] if path.is_dir() else [path]
    stats = [each.lstat() for each in below]
    files = {s.st_ino: s.st_size for each, s in zip(below, stats, strict=True) if not each.is_dir()}
    return Piece(kind, path, files, frozenset(owners), max(s.st_mtime for s in stats))


def _shared(
    store: Store, manifests: dict[str, Manifest], artefacts: Sequence[Piece]
) -> Iterator[Piece]:
    """What stages keep for each other, by who can be seen to make use of it."""

    def images(path: Path) -> set[str]:
        here = _piece("", path, set()).files.keys()
        return {name for p in artefacts if here & p.files.keys() for name in p.owners}

    def scores(path: Path) -> set[str]:
        return {
            name
            for name, manifest in manifests.items()
            for card in manifest.rewards.values()
            if path.name.startswith(sha256_text(str(card.get("signature")))[:16])
        }

    def of_pairs(path: Path) -> set[str]:
        return {
            name
            for name, manifest in manifests.items()
            for stage in manifest.stages
            if (stage.digest or "").startswith(path.name)
        }

    def encodings(path: Path) -> set[str]:
        """Whose they are is not on record: as long as results refer to encoded pairs, theirs."""
        return {name for p in artefacts if p.kind in ("encode", "latents") for name in p.owners}

    places: dict[str, tuple[Path, Callable[[Path], set[str]]]] = {
        "images": (store.pool("images"), images),
        "scores": (store.pool("scores"), scores),
        "train": (store.pool("train"), of_pairs),
        "reference": (store.pool("reference"), of_pairs),
        "encodings": (store.root / CACHE, encodings),
    }
    for kind, (place, users) in places.items():
        for path in sorted(place.glob("*")):
            if not path.name.startswith("."):
                yield _piece(f"shared {kind}", path, users(path))


def removable(found: Sequence[Piece], names: Sequence[str], hours: float) -> list[Piece]:
    """What nothing refers to but results of these names.

    Args:
        found: All pieces.
        names: Results that do not count.
        hours: What no result refers to is left alone for so long after its last change: it may be
            of an experiment that has not ended.
    """
    before = time.time() - 3600 * hours
    return [
        piece
        for piece in found
        if piece.owners <= {*names} and (piece.owners or piece.changed <= before)
    ]


def remove(gone: Sequence[Piece], found: Sequence[Piece]) -> None:
    """Delete pieces, if no other process is at work on any that was found.

    Raises:
        UserError: If one is: what it has made so far may be of no result yet.
    """
    for piece in found:
        if is_held(piece.path / LOCK):
            raise UserError(f"another process is at work on {piece.path}: wait until it has ended")
    for piece in gone:
        with writing(piece.path):
            if not piece.path.is_dir():
                drop(piece.path)
            elif (piece.path / LOCK).is_file():
                with locked(piece.path / LOCK):
                    clear(piece.path / STATUS)  # What is half deleted must not count as done.
                    clear(piece.path)
            else:
                clear(piece.path)
