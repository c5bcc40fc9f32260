"""Paired differences prompt by prompt: is a mean that of many prompts, or of a few?"""

from collections.abc import Sequence

import numpy as np

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, few
from bench.report.figures.style import COLOURS, GREY, named, panels
from bench.results.protocol import Comparison

MOST, COLUMNS = 12, 3


def draw(sources: Sequence[Source]) -> Drawn:
    """One panel for each comparison of two arms, prompts in the order of their differences."""
    source = sources[0]
    pairs = [f.comparison for f in source.results.comparisons if len(f.comparison.on) == 1]
    there = [(c, d) for c in pairs if len(d := _by_prompt(source, c)) > 1]
    if not there:
        raise Undrawn("no comparison of two arms has scores of two prompts")
    shown, more = few(there, MOST, "comparisons")
    columns = min(COLUMNS, len(shown))
    figure, axes = panels(-(-len(shown) // columns), columns, 1.75)
    limit = 1.05 * max(float(np.abs(d).max()) for _, d in shown) or 1.0
    for panel, (comparison, d) in zip(axes, shown, strict=False):
        ranks = np.arange(1, len(d) + 1)
        for side, colour, marker in ((d > 0, COLOURS[0], "^"), (d < 0, COLOURS[1], "v"),
                                     (d == 0, GREY, "o")):  # fmt: skip
            panel.plot(ranks[side], d[side], marker, color=colour, markersize=2.5)
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.axhline(float(d.mean()), color=GREY, linewidth=0.9, linestyle="--")
        panel.set_ylim(-limit, limit)
        panel.set_title(named(comparison.name))
        panel.annotate(f"{100 * np.mean(d > 0):.0f} % above 0", (0.97, 0.95), va="top", ha="right",
                       fontsize=7, xycoords="axes fraction")  # fmt: skip
    for empty in axes[len(shown) :]:
        empty.set_axis_off()
    figure.supxlabel("prompts, in the order of their differences", fontsize=8)
    figure.supylabel(f"difference of {named(source.primary)}", fontsize=8)
    return Drawn(
        figure,
        f"Paired differences of the {source.primary} score by prompt, each a mean over training "
        "seeds and images; dashed: their mean. Prompts with a missing score in some seed are left "
        f"out.{more} {source.tail()}",
    )


def _by_prompt(source: Source, comparison: Comparison) -> np.ndarray:
    """Differences of complete prompts, falling."""
    d = source.differences(comparison.on[0], comparison.off[0])
    d = d[~np.isnan(d).all(axis=1)]
    return np.sort(d[:, ~np.isnan(d).any(axis=0)].mean(axis=0))[::-1] if len(d) else np.empty(0)


FIGURE = Figure("prompts", "Differences by prompt", draw)
