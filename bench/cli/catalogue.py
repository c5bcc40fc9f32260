"""Everything a spec can name."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.rewards.kit.weights import Weights
from bench.spec import model as spec
from bench.spec import prompts
from bench.terminal import Column, print_json, print_table
from trainers.backbones import BACKBONES
from trainers.data.sources import SOURCES
from trainers.errors import UserError
from trainers.noising import NOISINGS
from trainers.objectives import OBJECTIVES, Objective
from trainers.optimizers import OPTIMIZERS
from trainers.references import REFERENCES
from trainers.registry import Registry, Settings, aside, blamed
from trainers.safeguards import SAFEGUARDS
from trainers.timesteps import LAWS, SCALES
from trainers.weights import WEIGHTS

Rows = list[dict[str, Any]]
P = TypeVar("P")


def catalogue(kind: str | None) -> dict[str, Rows]:
    """What there is, by kind; plug-ins that are broken are left out, and told on standard error.

    Raises:
        UserError: If ``kind`` is unknown.
    """
    broken: dict[str, None] = {}
    tell = broken.setdefault
    every: dict[str, Rows] = {
        "specs": [{"name": n, "title": spec.load_spec(n).title} for n in spec.shipped()],
        "rewards": _rows(REWARDS, _reward, tell),
        "objectives": _rows(OBJECTIVES, _objective, tell),
        "references": _rows(REFERENCES, _settings, tell),
        "safeguards": _rows(SAFEGUARDS, _settings, tell),
        "noisings": _rows(NOISINGS, _settings, tell),
        "timestep-laws": _rows(LAWS, _settings, tell),
        "reward-scales": _rows(SCALES, _settings, tell),
        "sources": _rows(SOURCES, _settings, tell),
        "optimizers": _rows(OPTIMIZERS, _settings, tell),
        "weights": _rows(WEIGHTS, _settings, tell),
        "backbones": [{"name": name} for name in BACKBONES.names()],
        "prompts": [*map(_prompts, prompts.shipped()), *map(_external, prompts.external())],
    }
    for line in broken:
        typer.echo(f"left out: {line}", err=True)
    if kind is None:
        return every
    if kind not in every:
        raise UserError(f"nothing is listed as {kind!r}: expected one of {', '.join(every)}")
    return {kind: every[kind]}


def _rows(
    registry: Registry[type[P]],
    describe: Callable[[str, type[P]], dict[str, Any]],
    tell: Callable[[str], object],
) -> Rows:
    """A row of each plug-in that can be used, and described."""
    rows = []
    for name, kind in registry.usable(tell):
        try:
            with aside():
                rows.append(describe(name, kind))
        except (Exception, SystemExit) as error:
            if (line := blamed(error)) is None:
                raise
            tell(f"{registry.kind} {name!r}: {line}")
    return rows


def _reward(name: str, kind: type[Reward]) -> dict[str, Any]:
    card = kind.card
    return {
        "name": name,
        "what it is": (inspect.getdoc(kind) or "-").partition("\n")[0],
        "direction": card.direction,
        "scale": card.scale,
        "range": f"{card.range[0]:g} to {card.range[1]:g}",
        "size": f"{card.parameters / 1e6:.1f} M" if card.parameters else "-",
        "weights": ", ".join(_place(source) for source in card.weights) or "-",
        "origin": card.origin,
        "trained_on": ", ".join(card.trained_on) or "-",
        "licence": card.licence,
    }


def _place(source: Weights) -> str:
    return f"{source.id}@{source.revision[:7]}" if source.revision else source.id


def _objective(name: str, kind: type[Objective]) -> dict[str, Any]:
    """Its formula, what it needs, and where public code departs; by its settings' defaults."""
    required = any(field.is_required() for field in kind.model_fields.values())
    made = None if required else kind()
    reference = "errors" if kind.referenced else "none"
    further = []
    if made is not None:
        reference = "predictions" if kind.referenced and made.predictions else reference
        further += ["means over the batch"] * (kind.statistics is not Objective.statistics)
        further += ["state"] * bool(made.initial_state())
    further += [f"column {column}" for column in kind.columns]
    return {
        "name": name,
        "formula": (inspect.getdoc(kind) or "-").partition("\n")[0].replace("``", "`").rstrip("."),
        "settings": _defaults(kind),
        "images": "pairs" if kind.images == 2 else "single",
        "reference": reference,
        "soft labels": "yes" if kind.soft_labels else "no",
        "further": ", ".join(further) or "-",
        "public code": kind.public_code,
    }


def _defaults(kind: type[Settings]) -> str:
    return ", ".join(
        f"{key}={'required' if field.is_required() else field.default!r}"
        for key, field in kind.model_fields.items()
    )


def _settings(name: str, kind: type[Settings]) -> dict[str, Any]:
    return {"name": name, "settings": _defaults(kind)}


def _prompts(name: str) -> dict[str, Any]:
    loaded = prompts.load_prompts(name)
    return {"name": name, "prompts": len(loaded.items), "split": loaded.split, "files": "shipped"}


def _external(name: str) -> dict[str, Any]:
    card = prompts.external()[name]
    return {"name": name, "prompts": card["rows"], "split": card["split"], "files": card["files"]}


PROSE = (
    "title", "what it is", "settings", "weights", "trained_on", "formula", "further", "public code"
)  # fmt: skip
"""Columns whose texts a terminal may break."""
WIDE = ("what it is", "weights", "formula", "public code")
"""Columns that a terminal has seldom room for."""


def markdown(rows: Rows) -> str:
    """A table of what :func:`catalogue` gave for one kind."""
    head = list(rows[0])
    cells = [[str(value).replace("|", "\\|") for value in row.values()] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_catalogue(entries: dict[str, Rows], as_json: bool, as_markdown: bool = False) -> None:
    """Print what :func:`catalogue` gave."""
    if as_json:
        print_json(entries)
        return
    if as_markdown:
        title = "## {}\n\n" if len(entries) > 1 else ""
        parts = [title.format(kind) + markdown(rows) for kind, rows in entries.items()]
        typer.echo("\n\n".join(parts))
        return
    for place, (kind, rows) in enumerate(entries.items()):
        if place:
            typer.echo()
        columns = [Column(n, prose=n in PROSE, rank=int(n in WIDE)) for n in rows[0]]
        print_table(columns, [[*map(str, row.values())] for row in rows], kind)
