"""What an updated reference gains, against beta and steps: a map over arms, or over folders."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Settings, Source, alike, few, told, updating, without
from bench.report.figures.style import GREY, named, panels
from bench.stats import Interval
from trainers.files import canonical_json

BETA, STEPS = "objective.beta", "steps"
COLOURS = "PuOr"
MOST = 4


class Cell(NamedTuple):
    """One pair of arms that differ in the reference alone."""

    beta: float
    steps: int
    interval: Interval


class Map(NamedTuple):
    """Cells of equal settings but for beta, steps and whether the reference is updated."""

    settings: Settings
    folders: list[str]
    cells: list[Cell]


def draw(sources: Sequence[Source]) -> Drawn:
    """One panel for each reference and whatever else differs: beta upwards, steps to the right."""
    there = [found for found in _maps(sources) if len({c[:2] for c in found.cells}) > 1]
    if not there:
        raise Undrawn(
            "no two pairs of arms that differ in the reference alone have other objective.beta "
            "or steps"
        )
    shown, more = few(there, MOST, "maps")
    figure, axes = panels(1, len(shown), 2.6)
    limit = max(abs(c.interval.mean) for found in shown for c in found.cells) or 1.0
    for panel, found in zip(axes, shown, strict=True):
        _map(panel, found.cells, limit)
        words = told(found.settings, [m.settings for m in shown]) or _reference(found.settings)
        where = ", ".join(dict.fromkeys(found.folders)) if len(sources) > 1 else ""
        panel.set_title("\n".join(named(line) for line in (where, words) if line))
    axes[0].set_ylabel("beta")
    source = sources[0]
    folders = f" Of the folders {', '.join(s.name for s in sources)}." if len(sources) > 1 else ""
    return Drawn(
        figure,
        f"Mean {source.primary} score of an arm with an updated reference less that of the same "
        f"arm with a frozen one, by beta and optimiser steps, with {source.level()} intervals over "
        "training seeds and prompts, not adjusted for their number; violet where it gains, brown "
        f"where it loses.{folders}{more} {source.tail()}",
    )


def _maps(sources: Sequence[Source]) -> list[Map]:
    """Cells by all other settings; of folders, those alike in what else decides a score."""
    found: dict[str, Map] = {}
    for source in sources:
        for on, off in _pairs(source):
            own = source.settings[on]
            interval = source.interval(on, off)
            if interval is not None and BETA in own:
                rest = without(own, BETA, STEPS)
                key = canonical_json(rest | source.folder_settings)
                place = found.setdefault(key, Map(rest, [], []))
                place.folders.append(source.name)
                place.cells.append(Cell(float(own[BETA]), int(own[STEPS]), interval))
    return [*found.values()]


def _pairs(source: Source) -> list[tuple[str, str]]:
    """Arms with an updated reference, and those that differ from them in a frozen one."""
    pairs = []
    for arms in alike(source.settings, "reference."):
        frozen = [arm for arm in arms if not updating(source.settings[arm])]
        pairs += [(arm, frozen[0]) for arm in arms if frozen and arm not in frozen]
    return pairs


def _map(axes: Axes, cells: Sequence[Cell], limit: float) -> None:
    betas, steps = sorted({c.beta for c in cells}), sorted({c.steps for c in cells})
    values = np.full((len(betas), len(steps)), np.nan)
    for cell in cells:
        row, column = betas.index(cell.beta), steps.index(cell.steps)
        if not np.isnan(values[row, column]):
            continue  # The first folder that has it.
        i = cell.interval
        values[row, column] = i.mean
        bright = abs(i.mean) < 0.6 * limit
        axes.text(
            column + 0.5, row + 0.5, f"{i.mean:+.4f}\n[{i.low:+.4f},\n{i.high:+.4f}]", ha="center",
            va="center", fontsize=6.5, color="black" if bright else "white",
        )  # fmt: skip
    axes.pcolormesh(values, cmap=matplotlib.colormaps[COLOURS], norm=Normalize(-limit, limit))
    axes.set_xticks([n + 0.5 for n in range(len(steps))], [str(n) for n in steps])
    axes.set_yticks([n + 0.5 for n in range(len(betas))], [f"{b:g}" for b in betas])
    axes.set_xlabel("optimiser steps")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_color(GREY)


def _reference(own: Settings) -> str:
    keys = [key for key in ("tau", "delta") if f"reference.{key}" in own]
    numbers = [f"{key} {own[f'reference.{key}']}" for key in keys]
    return ", ".join([f"reference {own['reference.name']}", *numbers])


FIGURE = Figure("gain-map", "Gain of an updated reference against beta and steps", draw, True)
