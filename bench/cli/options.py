"""The options that commands share, and what their texts mean. Imports nothing heavy."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from trainers.errors import UserError

if TYPE_CHECKING:
    from bench.spec.model import Generate, Scoring

M = TypeVar("M", "Generate", "Scoring")

SpecArgument = Annotated[str, typer.Argument(help="Name of a shipped spec, or a YAML file.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A smaller version: a smoke test.")]
SeedsOption = Annotated[str | None, typer.Option(help="Training seeds, e.g. 0-4 or 0,2,5.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=YAML, a dotted key of the spec to replace; may be repeated."),
]
OutOption = Annotated[Path, typer.Option(help="Folder for the store and the results.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores.")]
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
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise UserError(f"--seeds: expected e.g. 0-4 or 0,2,5, got {text!r}") from error
    return tuple(seeds)


def parse_source(text: str) -> "str | dict[str, Any]":
    """A path, or a mapping ``{name: ..., path: ...}`` in YAML.

    Raises:
        UserError: If it begins like a mapping and is none.
    """
    if not text.startswith("{"):
        return text
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"expected a path or {{name: ..., path: ...}}, got {text!r}") from error
    return dict(found)


def parse_changes(texts: list[str] | None) -> dict[str, Any]:
    """``train.steps=10`` and the like to dotted keys and values, which are read as YAML.

    Raises:
        UserError: If one has no key, or its value is no YAML.
    """
    import yaml

    changes: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            why = " ".join(str(error).split())
            raise UserError(f"--set {key}: expected YAML, got {value!r}: {why}") from error
        if not (key and equals):
            raise UserError(f"--set: expected KEY=YAML such as train.steps=10, got {text!r}")
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

    return _checked(Scoring, weights=_places(weights), **settings)


def parse_generate(**settings: Any) -> "Generate":
    """Settings of images.

    Raises:
        UserError: If one is wrong.
    """
    from bench.spec.model import Generate

    return _checked(Generate, **settings)


def _checked(kind: type[M], **settings: Any) -> M:
    from pydantic import ValidationError

    from trainers.registry import explain

    try:
        return kind(**settings)
    except ValidationError as error:
        raise UserError(explain(error)) from error
