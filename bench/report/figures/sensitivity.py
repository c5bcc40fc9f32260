"""Score against a number that arms differ in and nothing else: how much does a choice matter?"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, alike, few, short, told, without
from bench.report.figures.style import GREY, Look, looks, named, panels

MOST, LINES_MOST, COLUMNS = 6, 8, 2


class Line(NamedTuple):
    """Arms that differ in one number alone, each held against ``off``."""

    arms: Sequence[str]
    off: str
    look: Look
    label: str


def draw(sources: Sequence[Source]) -> Drawn:
    """One panel for each such setting; the gain over the base model."""
    source = sources[0]
    there = [(key, groups) for key in _keys(source) if (groups := _groups(source, key))]
    if not there:
        raise Undrawn("no two arms differ in one number alone")
    shown, more = few(there, MOST, "settings")
    columns = min(COLUMNS, len(shown))
    figure, axes = panels(-(-len(shown) // columns), columns, 2.7)
    for panel, (key, groups) in zip(axes, shown, strict=False):
        kept, fewer = few(groups, LINES_MOST, f"lines of {short(key)}")
        more += fewer
        firsts = [without(source.settings[group[0]], key) for group in kept]
        labels = [told(first, firsts) or ", ".join(group) for group, first in zip(kept, firsts,
                  strict=True)]  # fmt: skip
        lines = [
            Line(group, source.base(), look, named(label))
            for group, look, label in zip(kept, looks(len(kept)), labels, strict=True)
        ]
        plot_lines(panel, source, key, lines)
        panel.set_xlabel(key)
        panel.legend(fontsize=6, loc="upper left", bbox_to_anchor=(0, -0.18))
    for empty in axes[len(shown) :]:
        empty.set_axis_off()
    figure.supylabel(f"{named(source.primary)}, gain over {source.base()}", fontsize=8)
    return Drawn(
        figure,
        f"Gain of the mean {source.primary} score over the base model against settings that arms "
        f"differ in and in nothing else, with {source.level()} intervals over training seeds and "
        "prompts, not adjusted for their number. Arms of a line share seeds, so that differences "
        f"along it are surer than its intervals look.{more} {source.tail()}",
    )


def numbers(source: Source, key: str, arms: Sequence[str]) -> dict[float, str]:
    """Arms by the number that a setting has, rising."""
    found = {arm: source.settings[arm].get(key) for arm in arms}
    known = {
        float(value): arm
        for arm, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return dict(sorted(known.items()))


def plot_lines(axes: Axes, source: Source, key: str, lines: Sequence[Line]) -> None:
    """Differences with their intervals against a setting, on a log axis where that is wide.

    Lines are moved apart a little, so that none hides the interval of another.
    """
    values = sorted({v for line in lines for v in numbers(source, key, line.arms)})
    wide = values[0] > 0 and values[-1] / values[0] >= 4
    for place, line in enumerate(lines):
        found = {
            value: interval
            for value, arm in numbers(source, key, line.arms).items()
            if (interval := source.interval(arm, line.off)) is not None
        }
        shift, ratio = 0.015 * (place - (len(lines) - 1) / 2), values[-1] / (values[0] or 1)
        apart = shift * (values[-1] - values[0])
        axes.errorbar(
            [v * ratio**shift if wide else v + apart for v in found],
            [i.mean for i in found.values()],
            [[i.mean - i.low for i in found.values()], [i.high - i.mean for i in found.values()]],
            color=line.look.color, linestyle=line.look.linestyle, marker=line.look.marker,
            capsize=2, elinewidth=0.8, label=line.label,
        )  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=0.9)
    if wide:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()


def _keys(source: Source) -> list[str]:
    """Settings that are numbers, and not the same one in all arms."""
    keys = dict.fromkeys(key for own in source.settings.values() for key in own)
    return [key for key in keys if len(numbers(source, key, [*source.settings])) > 1]


def _groups(source: Source, key: str) -> list[list[str]]:
    """Arms that differ in this setting alone, where it is a number."""
    there = {arm: own for arm, own in source.settings.items() if key in own}
    return [group for group in alike(there, key) if len(numbers(source, key, group)) > 1]


FIGURE = Figure("sensitivity", "Sensitivity to single settings", draw)
