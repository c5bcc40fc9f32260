"""Everything a spec can name."""

from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from bench import prompts, spec
from bench.cli import print_json
from bench.rewards import REWARDS
from trainers.backbones import BACKBONES
from trainers.errors import UserError
from trainers.objectives import OBJECTIVES
from trainers.references import REFERENCES
from trainers.registry import Registry, Settings
from trainers.timesteps import LAWS, SCALES

Rows = list[dict[str, Any]]
S = TypeVar("S", bound=Settings)


def catalogue(kind: str | None) -> dict[str, Rows]:
    """What there is, by kind.

    Raises:
        UserError: If ``kind`` is unknown.
    """
    every: dict[str, Rows] = {
        "specs": [{"name": n, "title": spec.load_spec(n).title} for n in spec.shipped()],
        "rewards": [_reward(name) for name in REWARDS.names()],
        "objectives": _settings(OBJECTIVES),
        "references": _settings(REFERENCES),
        "timestep-laws": _settings(LAWS),
        "reward-scales": _settings(SCALES),
        "backbones": [{"name": name} for name in BACKBONES.names()],
        "prompts": [_prompts(name) for name in prompts.shipped()],
    }
    if kind is None:
        return every
    if kind not in every:
        raise UserError(f"nothing is listed as {kind!r}: expected one of {', '.join(every)}")
    return {kind: every[kind]}


def _reward(name: str) -> dict[str, Any]:
    card = REWARDS.get(name).card
    return {
        "name": name,
        "direction": card.direction,
        "scale": card.scale,
        "range": f"{card.range[0]:g} to {card.range[1]:g}",
        "size": f"{card.parameters / 1e6:.1f} M" if card.parameters else "-",
        "origin": card.origin,
        "trained_on": ", ".join(card.trained_on) or "-",
        "licence": card.licence,
    }


def _settings(registry: Registry[type[S]]) -> Rows:
    return [
        {
            "name": name,
            "settings": ", ".join(
                f"{key}={'required' if field.is_required() else field.default!r}"
                for key, field in registry.get(name).model_fields.items()
            ),
        }
        for name in registry.names()
    ]


def _prompts(name: str) -> dict[str, Any]:
    loaded = prompts.load_prompts(name)
    return {"name": name, "prompts": len(loaded.items), "split": loaded.split}


def print_catalogue(entries: dict[str, Rows], as_json: bool) -> None:
    """Print what :func:`catalogue` gave."""
    if as_json:
        print_json(entries)
        return
    console = Console()
    for kind, rows in entries.items():
        table = Table(title=kind, title_justify="left", title_style="italic")
        for column in rows[0]:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        console.print(table)
