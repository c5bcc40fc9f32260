"""Models and data that ship with the package, and folders of the user's, by one name."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.errors import UserError
from trainers.files import tree_hashes, write_text
from trainers.input.checked import shown
from trainers.input.paths import there

if TYPE_CHECKING:
    from trainers.data.sources import Source


def mini_folder() -> Path:
    """Where the shipped files of the miniature world lie."""
    return Path(str(files("bench"))) / "mini" / "weights"


def prompts_folder() -> Path:
    """Where the shipped prompt sets lie: in the package, or beside it in a checkout."""
    package = Path(str(files("bench")))
    inside = package / "prompts"
    return inside if inside.is_dir() else package.parent / "prompts"


def specs_folder() -> Path:
    """Where the shipped specs lie."""
    return Path(str(files("bench"))) / "spec" / "shipped"


def shipped_models() -> dict[str, Path]:
    """The models of the package by name."""
    return {"mini-sd": mini_folder() / "sd"}


def model_folder(source: str) -> Path:
    """The folder of a model: ``mini-sd``, or a folder of the user's.

    Raises:
        UserError: If there is no such folder.
    """
    return _find(source, shipped_models(), "model", "a diffusers folder")


PAIRS = "mini-pairs"
"""Name of the shipped pair set."""


def pairs_file() -> Path:
    """The parquet file of the shipped pair set."""
    return mini_folder() / "pairs.parquet"


def pairs_source(source: str | Mapping[str, Any]) -> "Source":
    """A source of pairs: ``mini-pairs``, a path, or a name with settings.

    Raises:
        UserError: If a name or a setting is unknown.
    """
    from trainers.data.sources import make_source

    return make_source(str(pairs_file()) if source == PAIRS else source)


def _find(source: str, shipped: dict[str, Path], kind: str, what: str) -> Path:
    path = shipped.get(source, Path(source))
    if there(path):
        return path
    if source in shipped:
        raise UserError(f"{kind} {source!r} is missing from this installation: install it again")
    raise UserError(f"no {kind} {shown(source)}: give the path of {what}, or {', '.join(shipped)}")


SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """Record the hash of every file below a folder, in the format of ``sha256sum``."""
    hashes = {name: digest for name, digest in tree_hashes(folder).items() if name != SUMS}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in hashes.items()))


def differing(folder: Path) -> list[str]:
    """Files below a folder that are not as :func:`write_sums` recorded them.

    Raises:
        UserError: If there is no record.
    """
    record = folder / SUMS
    if not record.is_file():
        raise UserError(f"no {record}: install the package again")
    lines = (line.split("  ", 1) for line in record.read_text(encoding="utf-8").splitlines())
    expected = {name: digest for digest, name in lines}
    actual = {name: digest for name, digest in tree_hashes(folder).items() if name != SUMS}
    return sorted({name for name, _ in expected.items() ^ actual.items()})
