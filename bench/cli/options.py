"""The options that commands share, and what their texts mean. Imports nothing heavy."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.errors import UserError

if TYPE_CHECKING:
    from bench.spec.model import Generate, Scoring

SpecArgument = Annotated[str, typer.Argument(help="Name of a shipped spec, or a YAML file.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A smaller version: a smoke test.")]
SeedsOption = Annotated[str | None, typer.Option(help="Training seeds, e.g. 0-4 or 0,2,5.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=YAML, a dotted key of the spec to replace; may be repeated."),
]
OutOption = Annotated[Path, typer.Option(help="Folder for the store and the results.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Processes; default: all cores.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, max=10**6, help="Images per forward pass.")]
LARGEST_SEED = 2**63 - 1
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NotesOption = Annotated[
    bool, typer.Option("--notes", help="Print signatures and footnotes under the tables as well.")
]
RewardsOption = Annotated[
    str, typer.Option(help="Names with commas between them; 'all', 'mini' and 'hpsv2' are groups.")
]
WeightsOption = Annotated[
    list[str] | None,
    typer.Option(help="NAME=FOLDER or NAME=OWNER/REPOSITORY@REVISION; may be repeated."),
]


def _forbid_downloads(offline: bool) -> bool:
    if offline:  # Read by huggingface_hub when it is imported.
        os.environ["HF_HUB_OFFLINE"] = "1"
    return offline


OfflineOption = Annotated[
    bool, typer.Option("--offline", callback=_forbid_downloads, help="Forbid downloads.")
]


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """``0-4`` or ``0,2,5`` to seeds.

    Raises:
        UserError: If it is neither.
    """
    if text is None:
        return None
    from trainers.input.checked import shown
    from trainers.seeds import MANY

    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r" *([0-9]{1,19})(?:-([0-9]{1,19}))? *", part)
        if found is None:
            raise UserError(f"--seeds: expected e.g. 0-4 or 0,2,5, got {shown(text)}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last <= LARGEST_SEED or last - first >= MANY - len(seeds):
            raise UserError(
                f"--seeds: expected at most {MANY} seeds from 0 to {LARGEST_SEED}, smaller ones "
                f"first, got {shown(text)}"
            )
        seeds += range(first, last + 1)
    return tuple(seeds)


def parse_source(text: str) -> "str | dict[str, Any]":
    """A path, or a mapping ``{name: ..., path: ...}`` in YAML.

    Raises:
        UserError: If it begins like a mapping and is none.
    """
    if not text.startswith("{"):
        return text
    from trainers.input.checked import refuse_odd
    from trainers.input.text import parse_yaml

    found = parse_yaml(text, "the source")
    refuse_odd(found, "the source")
    return dict(found)


def parse_changes(texts: list[str] | None) -> dict[str, Any]:
    """``train.steps=10`` and the like to dotted keys and values, which are read as YAML.

    Raises:
        UserError: If one has no key, or its value is no YAML.
    """
    from trainers.input.checked import key_text, shown
    from trainers.input.text import parse_yaml

    changes: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"--set: expected KEY=YAML such as train.steps=10, got {shown(text)}")
        try:
            changes[key] = parse_yaml(value, "YAML")
        except UserError as error:
            raise UserError(
                f"--set {key_text(key)}: expected YAML, got {shown(value)} ({error})"
            ) from error
    return changes


def split(names: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in names.split(",") if name.strip()]


def _places(texts: list[str] | None) -> dict[str, str]:
    places: dict[str, str] = {}
    for text in texts or ():
        name, equals, place = text.partition("=")
        if not (name and equals and place):
            raise UserError(
                f"--weights: expected NAME=FOLDER or NAME=OWNER/REPOSITORY@REVISION, got {text!r}"
            )
        places[name] = place
    return places


def parse_scoring(weights: list[str] | None, **settings: Any) -> "Scoring":
    """Settings of rewards; ``weights`` are ``NAME=PLACE``.

    Raises:
        UserError: If one is wrong.
    """
    from bench.spec.model import Scoring
    from trainers.input.checked import check

    return check(Scoring, {"weights": _places(weights), **settings})


def parse_generate(**settings: Any) -> "Generate":
    """Settings of images.

    Raises:
        UserError: If one is wrong.
    """
    from bench.spec.model import Generate
    from trainers.input.checked import check

    return check(Generate, settings)
