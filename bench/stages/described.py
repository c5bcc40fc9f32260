"""A stage as a file of the store, from which any machine can run it.

``<root>/stages/<first 16 hex digits of the id>.json`` holds the fields of a stage as JSON; stages
that it needs stand there by their ids, in files of their own. Nothing is ever unpickled: a file can
name settings and plug-ins that are installed, and no code. What decides the outputs is in the id,
which is computed anew from what was read; where models and data lie is not, so what is found there
is compared with the hashes that are.
"""

import dataclasses
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bench.stages.base import Stage
from bench.stages.diversity import DiversityStage
from bench.stages.encode import EncodeStage
from bench.stages.generate import GenerateStage
from bench.stages.reference import ReferenceStage
from bench.stages.score import ScoreStage
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.config import TrainConfig
from trainers.data.sources import Source, make_source
from trainers.errors import UserError
from trainers.files import as_json, write_text
from trainers.input.checked import shown
from trainers.input.text import read_json
from trainers.sealed import open_record, seal_record

FOLDER = "stages"
"""Of the store, where the descriptions lie."""
KINDS: dict[str, type[Stage]] = {
    kind.kind: kind
    for kind in (
        EncodeStage, ReferenceStage, TrainStage, GenerateStage, ScoreStage, DiversityStage,
    )
}  # fmt: skip
DEEPEST = 10
"""Stages in a line of which each needs the next, at most."""
LONGEST = 200
"""Characters of a fault that are told."""
_UNHASHED = ("gradient_checkpointing",)
"""Fields of a run that are in no dump of it, since they are no part of its identity."""


def describe(stages: Iterable[Stage], store: Store) -> None:
    """Write the descriptions of stages, and of all that they need, into the store."""
    written: set[str] = set()
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        if stage.id not in written:
            written.add(stage.id)
            waiting += stage.follows
            text = as_json(seal_record(_record(stage)))
            path = _path(store, stage.id)
            if not path.is_file() or path.read_bytes() != text.encode():
                write_text(path, text)


def read_stage(identity: str, store: Store) -> tuple[Stage, Path]:
    """The stage of an id, or of its first 16 hex digits or more, as it was described.

    Returns:
        It, and the folder that paths of its fields are relative to.

    Raises:
        UserError: If there is no such description, it was changed, or what it says is not the stage
            of that id.
    """
    if not (set(identity) <= set("0123456789abcdef") and 16 <= len(identity) <= 64):
        raise UserError(f"expected 16 to 64 hex digits of a stage's id, got {shown(identity)}")
    known: dict[str, Stage] = {}
    stage = _read(identity, store, known, 0)
    return stage, Path(_said(_path(store, identity))["folder"])


def _path(store: Store, identity: str) -> Path:
    return store.root / FOLDER / f"{identity[:16]}.json"


@cache
def _adapters(kind: type[Stage]) -> dict[str, tuple[Any, TypeAdapter[Any] | None]]:
    """Type of each field, and what reads and writes it; None for a stage or a source."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    plain = {name: not (_is_stage(hints[name]) or hints[name] is Source) for name in names}
    return {name: (hints[name], TypeAdapter(hints[name]) if plain[name] else None)
            for name in names}  # fmt: skip


def _is_stage(hint: Any) -> bool:
    """Whether a field holds a stage, or none."""
    options = get_args(hint) or (hint,)
    return any(isinstance(option, type) and issubclass(option, Stage) for option in options)


def _record(stage: Stage) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, (_, adapter) in _adapters(type(stage)).items():
        value = getattr(stage, name)
        if isinstance(value, Stage):
            fields[name] = value.id
        elif isinstance(value, Source):
            fields[name] = value.resolved()
        else:
            fields[name] = adapter.dump_python(value, mode="json") if adapter else value
        if isinstance(value, TrainConfig):
            fields[name] |= {hidden: getattr(value, hidden) for hidden in _UNHASHED}
    return {"id": stage.id, "kind": stage.kind, "folder": str(Path.cwd()), "fields": fields}


def _said(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"no stage {path.stem} is described in {path.parent}: expected one that 'bench ablate "
            "--launch slurm' or '--launch ray' has planned with this store"
        )
    record = read_json(path)
    said = open_record(record) if isinstance(record, dict) else None
    if said is None:
        raise _refused(path, "it was changed since it was written")
    return said


def _read(identity: str, store: Store, known: dict[str, Stage], depth: int) -> Stage:
    if identity in known:
        return known[identity]
    path = _path(store, identity)
    said = _said(path)
    try:
        if depth > DEEPEST:
            raise ValueError("stages that it needs need it")
        stage = _made(said, store, known, depth)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(path, " ".join(str(error).split())[:LONGEST]) from error
    if not stage.id.startswith(identity) or stage.id != said["id"]:
        raise _refused(path, f"it describes stage {stage.id[:16]}")
    known[identity] = stage
    return stage


def _made(said: dict[str, Any], store: Store, known: dict[str, Stage], depth: int) -> Stage:
    kind, values = KINDS[said["kind"]], {}
    for name, (hint, adapter) in _adapters(kind).items():
        value = said["fields"][name]
        if adapter is not None:
            values[name] = adapter.validate_python(value)
        elif hint is Source:
            values[name] = make_source(value)
        else:
            values[name] = value and _read(str(value), store, known, depth + 1)
    return kind(**values)


def _refused(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not the description of its stage ({why}): delete it, and run 'bench ablate' "
        "again"
    )
