"""Where the files of a reward come from, and whether they are the ones that were meant."""

import importlib.resources
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from trainers.errors import UserError
from trainers.files import sha256_file, write_text
from trainers.home import home
from trainers.input.checked import Checked
from trainers.input.text import read_json

LISTING = "sha256.json"
"""File beside shipped weights that maps their names to hashes."""
ALLOW = "DPO_BENCH_ALLOW_DOWNLOAD"
"""Environment variable that allows downloads where it is ``1``. HF_HUB_OFFLINE still forbids."""


class Weights(Checked):
    """Files from one place: a Hub repository, or a folder inside a Python package."""

    id: str
    """``owner/name`` on the Hub, or ``package:name/folder``."""
    revision: str | None = None
    """Commit on the Hub. None means the newest one, which is safe only if hashes are known."""
    files: tuple[str, ...]
    sha256: dict[str, str] = Field(default_factory=dict)
    """Known hashes by file name; a file with another hash is refused. The hash of a file without a
    known one is recorded when it is first seen, and enforced on this machine from then on."""

    def pick(self, *files: str) -> "Weights":
        """Some of the files."""
        known = {name: value for name, value in self.sha256.items() if name in files}
        return self.model_copy(update={"files": files, "sha256": known})


@dataclass(frozen=True)
class Found:
    """Files by name, their hashes, and whether each is known to be the one that was meant."""

    paths: dict[str, Path]
    sha256: dict[str, str]
    genuine: bool


def find(sources: Sequence[Weights], place: Path | str | None, download: bool) -> Found:
    """Find and verify the files of all ``sources``, in ``place`` if one is given.

    Files in a ``place`` are the user's choice: they may differ from the known hashes, which makes
    the result not ``genuine``, but not from a listing that lies beside them.

    Args:
        sources: What is looked for.
        place: A folder, or ``owner/name`` or ``owner/name@revision`` on the Hub; it holds every
            file of all sources.
        download: Whether downloads are allowed.

    Raises:
        UserError: If a file is missing or is not the pinned one.
    """
    paths: dict[str, Path] = {}
    sha256: dict[str, str] = {}
    genuine = True
    for source in sources:
        found, witnesses = _locate(source, place, download)
        hashes = {name: sha256_file(path) for name, path in found.items()}
        for witness, known in witnesses.items():
            _refuse_others(hashes, known, witness)
        if place is None:
            _remember(source, hashes)
        else:
            package = _package_folder(source)
            known = source.sha256 | (_listing(package) if package else {})
            genuine &= all(known.get(name) == value for name, value in hashes.items())
        paths |= found
        sha256 |= hashes
    return Found(paths, sha256, genuine)


def _locate(
    source: Weights, place: Path | str | None, download: bool
) -> tuple[dict[str, Path], dict[str, dict[str, str]]]:
    """Paths by name, and the hashes that each witness knows."""
    folder = _package_folder(source) if place is None else _as_folder(place)
    if folder is not None:
        witnesses = {} if place is not None else {source.id: source.sha256}
        found = _in_folder(source, folder)
        return found, {str(folder / LISTING): _listing(folder), **witnesses}
    if place is None:
        return _in_hub(source, download), {source.id: source.sha256 | _remembered(source)}
    repository, _, revision = str(place).partition("@")
    mirror = source.model_copy(update={"id": repository, "revision": revision or None})
    return _in_hub(mirror, download), {}


def _as_folder(place: Path | str) -> Path | None:
    """The folder that ``place`` is, or None if it is the name of a repository."""
    looks_remote = isinstance(place, str) and re.fullmatch(r"[\w.-]+/[\w.-]+(@\w+)?", place)
    return None if looks_remote and not Path(place).is_dir() else Path(place)


def _record(source: Weights) -> Path:
    return home() / "hashes" / f"{source.id.replace('/', '--')}@{source.revision or 'main'}.json"


def _remembered(source: Weights) -> dict[str, str]:
    return _hashes(_record(source))


def _remember(source: Weights, hashes: dict[str, str]) -> None:
    """Record the hashes of downloads that nobody has stated."""
    before = _remembered(source)
    new = {n: h for n, h in hashes.items() if n not in source.sha256 and n not in before}
    if new and _package_folder(source) is None:
        write_text(_record(source), json.dumps(before | new, indent=1) + "\n")


def _refuse_others(hashes: dict[str, str], known: dict[str, str], witness: object) -> None:
    for name, value in hashes.items():
        if known.get(name, value) != value:
            raise UserError(
                f"{name}: expected sha256 {known[name]} by {witness}, got {value}: the file was "
                "changed or damaged, fetch or install it again"
            )


def _listing(folder: Path) -> dict[str, str]:
    return _hashes(folder / LISTING)


def _hashes(path: Path) -> dict[str, str]:
    """Hashes by name; none without the file."""
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UserError(f"{path}: expected names and their sha256, got other JSON: restore it")
    return found


def _package_folder(source: Weights) -> Path | None:
    if not source.id.startswith("package:"):
        return None
    package, _, folder = source.id.removeprefix("package:").partition("/")
    return Path(str(importlib.resources.files(package))) / folder


def _in_folder(source: Weights, folder: Path) -> dict[str, Path]:
    found = {name: folder / name for name in source.files}
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        raise UserError(
            f"expected {', '.join(source.files)} in {folder}, missing {', '.join(missing)}: "
            f"give a folder with these files as {source.id} lays them out, or install them again"
        )
    return found


def _in_hub(source: Weights, download: bool) -> dict[str, Path]:
    """Paths in the Hub's cache. The Hub is asked only if downloads are allowed."""
    from huggingface_hub import constants, hf_hub_download

    allowed = download or os.environ.get(ALLOW) == "1"
    found: dict[str, Path] = {}
    for name in source.files:
        try:
            path = hf_hub_download(
                source.id, name, revision=source.revision, local_files_only=not allowed
            )
        except OSError as error:
            if constants.HF_HUB_OFFLINE:
                mend = "HF_HUB_OFFLINE forbids a download: unset it"
            elif allowed:
                mend = f"the download failed ({str(error).splitlines()[0]}): check the network"
            else:
                mend = f"run 'bench prefetch', or set {ALLOW}=1 to download it"
            raise UserError(
                f"expected {name} of {source.id} at revision {source.revision or 'main'} in the "
                f"Hub cache {constants.HF_HUB_CACHE}, found none: {mend}, or give a local folder "
                f"that holds {', '.join(source.files)}"
            ) from error
        found[name] = Path(path)
    return found
