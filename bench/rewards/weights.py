"""Where the files of a reward come from, and whether they are the ones that were meant."""

import importlib.resources
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trainers.errors import UserError
from trainers.files import sha256_file

LISTING = "sha256.json"
"""File beside shipped weights that maps their names to hashes."""
ALLOW = "DPO_BENCH_ALLOW_DOWNLOAD"
"""Environment variable that allows downloads where it is ``1``. HF_HUB_OFFLINE still forbids."""


class Weights(BaseModel):
    """Files from one place: a Hub repository, or a folder inside a Python package."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    """``owner/name`` on the Hub, or ``package:name/folder``."""
    revision: str | None = None
    """Commit on the Hub. None means the newest one, which is safe only if hashes are known."""
    files: tuple[str, ...]
    sha256: dict[str, str] = {}
    """Known hashes by file name; a file with another hash is refused. A file without a known hash
    is taken as the revision gives it, and the signature records what it was."""


@dataclass(frozen=True)
class Found:
    """Files by name, their hashes, and whether each is known to be the one that was meant."""

    paths: dict[str, Path]
    sha256: dict[str, str]
    genuine: bool


def find(sources: Sequence[Weights], folder: Path | None, download: bool) -> Found:
    """Find and verify the files of all ``sources``, in ``folder`` if one is given.

    Files in ``folder`` are the user's own: they may differ from the known hashes, which makes the
    result not ``genuine``, but not from a listing that lies beside them.

    Raises:
        UserError: If a file is missing or is not the pinned one.
    """
    paths: dict[str, Path] = {}
    sha256: dict[str, str] = {}
    genuine = True
    for source in sources:
        home = folder or _package_folder(source)
        found = _in_folder(source, home) if home else _in_hub(source, download)
        hashes = {name: sha256_file(path) for name, path in found.items()}
        if home:
            _refuse_others(hashes, _listing(home), home / LISTING)
        if folder is None:
            _refuse_others(hashes, source.sha256, source.id)
        else:
            package = _package_folder(source)
            known = source.sha256 | (_listing(package) if package else {})
            genuine &= all(known.get(name) == value for name, value in hashes.items())
        paths |= found
        sha256 |= hashes
    return Found(paths, sha256, genuine)


def _refuse_others(hashes: dict[str, str], known: dict[str, str], witness: object) -> None:
    for name, value in hashes.items():
        if known.get(name, value) != value:
            raise UserError(
                f"{name}: expected sha256 {known[name]} by {witness}, got {value}: the file was "
                "changed or damaged, fetch or install it again"
            )


def _listing(folder: Path) -> dict[str, str]:
    path = folder / LISTING
    hashes: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    return hashes


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
                mend = f"set {ALLOW}=1 to download it"
            raise UserError(
                f"expected {name} of {source.id} at revision {source.revision or 'main'} in the "
                f"Hub cache {constants.HF_HUB_CACHE}, found none: {mend}, or give a local folder "
                f"that holds {', '.join(source.files)}"
            ) from error
        found[name] = Path(path)
    return found
