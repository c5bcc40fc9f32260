"""Prompt sets: shipped with the package, files of the user's, or known sets that lie elsewhere.

A set has a card in YAML: source, licence, split, the data sets that it was taken from. That of a
shipped set, or of a file of the user's, lies beside the file and has its sha256. That of a set
that may not be shipped lies alone: it says where its ``files`` are looked for and how many rows
they have.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.assets import prompts_folder
from bench.spec.prompt_files import READERS, find_files, hash_files, read_prompts
from trainers.errors import UserError
from trainers.input.checked import shown
from trainers.input.text import read_yaml

Card = dict[str, Any]


@dataclass(frozen=True)
class PromptSet:
    """Prompts by id, in the order of the file."""

    name: str
    sha256: str
    split: str
    items: tuple[tuple[str, str], ...]
    """(id, prompt). Rows of a table are numbered from 0."""
    datasets: tuple[str, ...] = ()
    """Data sets the prompts were taken from, e.g. ``Pick-a-Pic/test``."""
    repeated: int = 0
    """Rows left out because their prompt was there before: equal prompts share their noise."""


def shipped() -> dict[str, Path]:
    """The prompt sets of the package by name."""
    return {p.stem: p for p in sorted(prompts_folder().glob("*.jsonl"))}


def external() -> dict[str, Card]:
    """The cards of known sets that are not shipped, by name."""
    cards = sorted(prompts_folder().glob("*.yaml"))
    alone = (path for path in cards if not path.with_suffix(".jsonl").is_file())
    return {path.stem: read_yaml(path) for path in alone}


def load_prompts(source: str, limit: int | None = None, files: str | None = None) -> PromptSet:
    """Read a set by name, or a file by path.

    A jsonl file has lines ``{"id": ..., "prompt": ...}``, none of them twice. Without ids it is a
    table, as parquet, csv, tsv, json (a column ``prompt``, ``Prompt``, ``caption`` or ``text``, or
    a list of strings) and txt (a prompt on each line) are: rows are numbered, and of prompts that
    repeat the first is kept. So may several tables be, named by a pattern with ``*``.

    Args:
        source: A set shipped with the package, a known one, a path or a pattern.
        limit: Only so many of the first prompts.
        files: Where the files of a known set are, if not where its card says.

    Raises:
        UserError: If it is missing, malformed, repeats an id, does not match its card, or holds
            fewer prompts than asked for.
    """
    card, paths = _find(source, files)
    digest, where = hash_files(paths), str(paths[0]) if len(paths) == 1 else source
    if "sha256" in card and card["sha256"] != digest:
        raise UserError(
            f"{where} is not the file its card describes (sha256 {digest[:12]}, card says "
            f"{str(card['sha256'])[:12]}): restore it, or give a changed set a name of its own"
        )
    items, repeated = read_prompts(paths)
    rows = len(items) + repeated
    if rows != card.get("rows", rows):
        raise UserError(
            f"prompt set {source!r} has {card['rows']} rows, got {rows} in {len(paths)} file(s) "
            f"at {where}: fetch what is missing, or give another selection by its path"
        )
    if not items:
        raise UserError(f"{where} holds no prompts")
    if limit is not None and limit > len(items):
        raise UserError(f"{where} holds {len(items)} prompts, {limit} were asked for")
    name = source if source in external() else Path(where).stem
    datasets = tuple(card.get("datasets", ()))
    return PromptSet(name, digest, card.get("split", "unstated"), items[:limit], datasets, repeated)


def count_prompts(source: str, limit: int | None = None, files: str | None = None) -> int:
    """How many prompts :func:`load_prompts` would give; by its card, for a set that is not there.

    Raises:
        UserError: As :func:`load_prompts`.
    """
    card = external().get(source)
    if card is None or find_files(files or card["files"]):
        return len(load_prompts(source, limit, files).items)
    rows = int(card["rows"])
    return min(rows, limit or rows)


def _find(source: str, files: str | None) -> tuple[Card, list[Path]]:
    """Card and files of a set."""
    known = external()
    if source in known:
        card = known[source]
        place = files or card["files"]
        if not (paths := find_files(place)):
            raise UserError(
                f"prompt set {source!r} is not part of this package, and there is no {place}: "
                "fetch it as docs/recipes.md says, or say by prompt_files where it is"
            )
        return card, paths
    if files is not None:
        raise UserError(
            f"prompt_files is for {', '.join(known)}: give the path of {shown(source)} alone"
        )
    path = shipped().get(source)
    paths = find_files(source) if path is None else [path]
    if not paths:
        raise UserError(
            f"no prompt set {shown(source)}: give the path of a {', '.join(READERS)} file or "
            f"a pattern of them, or one of {', '.join((*shipped(), *known))}"
        )
    beside = paths[0].with_suffix(".yaml")
    if len(paths) > 1 or not beside.is_file():
        return {}, paths
    card = read_yaml(beside)
    if not isinstance(card, dict) and card is not None:
        raise UserError(f"{beside}: expected the keys of a card, got a {type(card).__name__}")
    return {"sha256": None, **card} if card else {}, paths  # It must say which file it is of.
