"""What an updated reference gains, against beta and steps: a map over arms, or over folders."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Settings, Source, few, told, updating, without
from bench.report.figures.style import GREY, named, panels
from bench.stats import Interval

BETA, STEPS = "objective.beta", "steps"
COLOURS = "PuOr"
MOST = 4


class Cell(NamedTuple):
    """One pair of arms that differ in the reference alone."""

    beta: float
    steps: int
    interval: Interval


def draw(sources: Sequence[Source]) -> Drawn:
    """One panel for each reference and whatever else differs: beta upwards, steps to the right."""
    found = _panels(sources)
    there = [(own, cells) for own, cells in found if len({c[:2] for c in cells}) > 1]
    if not there:
        raise Undrawn(
            "no two pairs of arms that differ in the reference alone have other objective.beta "
            "or steps"
        )
    shown, more = few(there, MOST, "maps")
    figure, axes = panels(1, len(shown), 2.6)
    limit = max(abs(c.interval.mean) for _, cells in shown for c in cells) or 1.0
    for panel, (own, cells) in zip(axes, shown, strict=True):
        _map(panel, cells, limit)
        panel.set_title(named(told(own, [other for other, _ in shown]) or _reference(own)))
    axes[0].set_ylabel("beta")
    source = sources[0]
    folders = f" Of the folders {', '.join(s.name for s in sources)}." if len(sources) > 1 else ""
    return Drawn(
        figure,
        f"Mean {source.primary} score of an arm with an updated reference less that of the same "
        f"arm with a frozen one, by beta and optimiser steps, with {source.level()} intervals over "
        f"training seeds and prompts, not adjusted for their number; violet where it gains, brown "
        f"where it loses.{folders}{more} "
        f"{source.tail()}",
    )


def _panels(sources: Sequence[Source]) -> list[tuple[Settings, list[Cell]]]:
    """Cells by all other settings; of folders, those alike in what else decides a score."""
    groups: dict[str, tuple[Settings, list[Cell]]] = {}
    for source in sources:
        for on, off in _pairs(source):
            own = source.settings[on]
            rest = without(own, BETA, STEPS) | source.folder_settings
            interval = source.interval(on, off)
            if interval is not None and BETA in own:
                _, cells = groups.setdefault(repr(sorted(rest.items())), (rest, []))
                cells.append(Cell(float(own[BETA]), int(own[STEPS]), interval))
    return [*groups.values()]


def _pairs(source: Source) -> list[tuple[str, str]]:
    """Arms with an updated reference, and those that differ from them in a frozen one."""
    frozen: dict[str, str] = defaultdict(str)
    for arm, own in source.settings.items():
        if not updating(own):
            frozen[repr(sorted(without(own, "reference.").items()))] = arm
    keys = {
        arm: repr(sorted(without(own, "reference.").items()))
        for arm, own in source.settings.items()
        if updating(own)
    }
    return [(arm, frozen[key]) for arm, key in keys.items() if key in frozen]


def _map(axes: Axes, cells: Sequence[Cell], limit: float) -> None:
    betas, steps = sorted({c.beta for c in cells}), sorted({c.steps for c in cells})
    values = np.full((len(betas), len(steps)), np.nan)
    scale = Normalize(-limit, limit)
    for cell in cells:
        row, column = betas.index(cell.beta), steps.index(cell.steps)
        if not np.isnan(values[row, column]):
            continue  # The first folder that has it.
        i = cell.interval
        values[row, column] = i.mean
        bright = abs(i.mean) < 0.6 * limit
        axes.text(column, row, f"{i.mean:+.4f}\n[{i.low:+.4f},\n{i.high:+.4f}]", ha="center",
                  va="center", fontsize=6.5, color="black" if bright else "white")  # fmt: skip
    axes.imshow(values, cmap=matplotlib.colormaps[COLOURS], norm=scale, origin="lower",
                aspect="auto")  # fmt: skip
    axes.set_xticks(range(len(steps)), [str(n) for n in steps])
    axes.set_yticks(range(len(betas)), [f"{b:g}" for b in betas])
    axes.set_xlabel("optimiser steps")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_color(GREY)


def _reference(own: Settings) -> str:
    numbers = (f"{key} {own[f'reference.{key}']}" for key in ("tau", "delta"))
    return f"reference {own['reference.name']}, {', '.join(numbers)}"


FIGURE = Figure("gain-map", "Gain of an updated reference against beta and steps", draw, True)
