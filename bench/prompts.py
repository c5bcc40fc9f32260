"""Prompt sets: a jsonl file, beside it a card with source, licence, split and sha256."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from trainers.errors import UserError
from trainers.files import sha256_file


@dataclass(frozen=True)
class PromptSet:
    """Prompts by id, in the order of the file."""

    name: str
    sha256: str
    split: str
    items: tuple[tuple[str, str], ...]
    """(id, prompt)."""
    datasets: tuple[str, ...] = ()
    """Data sets the prompts were taken from, e.g. ``Pick-a-Pic/test``."""


def shipped() -> dict[str, Path]:
    """The prompt sets of the package by name."""
    return {p.stem: p for p in sorted(Path(str(files("prompts"))).glob("*.jsonl"))}


def load_prompts(source: str, limit: int | None = None) -> PromptSet:
    """Read a shipped set by name, or a jsonl file of ``{"id": ..., "prompt": ...}`` by path.

    Raises:
        UserError: If it is missing, malformed, repeats an id or a prompt, does not match the hash
            on its card, or holds fewer prompts than asked for.
    """
    path = shipped().get(source, Path(source))
    if not path.is_file():
        raise UserError(
            f"no prompt set {source!r}: give the path of a jsonl file, or one of "
            f"{', '.join(shipped())}"
        )
    digest = sha256_file(path)
    card_path = path.with_suffix(".yaml")
    card = yaml.safe_load(card_path.read_text()) if card_path.is_file() else {}
    if card and card.get("sha256") != digest:
        raise UserError(
            f"{path} is not the file its card describes (sha256 {digest[:12]}, card says "
            f"{str(card.get('sha256'))[:12]}): restore it, or give a changed set a name of its own"
        )
    items = _read(path)
    if not items:
        raise UserError(f"{path} holds no prompts")
    if limit is not None and limit > len(items):
        raise UserError(f"{path} holds {len(items)} prompts, {limit} were asked for")
    datasets = tuple(card.get("datasets", ()))
    return PromptSet(path.stem, digest, card.get("split", "unstated"), items[:limit], datasets)


def _read(path: Path) -> tuple[tuple[str, str], ...]:
    items: list[tuple[str, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            items.append((str(row["id"]), str(row["prompt"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}:{number}: expected {{"id": ..., "prompt": ...}}, got {line[:60]!r}'
            ) from error
    for what, values in (("id", [i for i, _ in items]), ("prompt", [p for _, p in items])):
        repeated = {v for v in values if values.count(v) > 1}
        if repeated:
            # Equal prompts would share their noise, and be counted as two observations.
            raise UserError(f"{path}: {what} {sorted(repeated)[0]!r} occurs more than once")
    return tuple(items)
