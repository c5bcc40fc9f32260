"""Score against score: does another reward prefer the images that the primary one prefers?"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, few
from bench.report.figures.style import COLOURS, GREY, named, panels
from bench.results.analysis import Array

MOST, COLUMNS, POINTS = 9, 3, 400


def draw(sources: Sequence[Source]) -> Drawn:
    """One panel for each other reward: differences of single images with base at equal noise."""
    source = sources[0]
    own = _pairs(source, source.primary)
    others = [r.name for r in source.results.protocol.rewards if r.name != source.primary]
    there = [(name, *_known(own, _pairs(source, name))) for name in others]
    there = [panel for panel in there if len(panel[1]) > 2]
    if not there:
        raise Undrawn("there is no second reward to hold against the primary one")
    shown, more = few(there, MOST, "rewards")
    columns = min(COLUMNS, len(shown))
    figure, axes = panels(-(-len(shown) // columns), columns, 2.3)
    for panel, (name, x, y) in zip(axes, shown, strict=False):
        every = -(-len(x) // POINTS)
        agree = (x > 0) == (y > 0)
        for side, colour, marker in ((agree, COLOURS[0], "o"), (~agree, COLOURS[1], "x")):
            panel.plot(x[::every][side[::every]], y[::every][side[::every]], marker, color=colour,
                       markersize=2.2, alpha=0.7, markeredgewidth=0.6)  # fmt: skip
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.axvline(0, color=GREY, linewidth=0.8)
        apart = (x != 0) & (y != 0)
        rank = float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else float("nan")
        share = f"{100 * agree[apart].mean():.0f} %" if apart.any() else "no pair"
        panel.set_title(f"{named(name)}\nagrees in {share}, Spearman {rank:.2f}")
    for empty in axes[len(shown) :]:
        empty.set_axis_off()
    figure.supxlabel(f"difference of {named(source.primary)}, higher is better", fontsize=8)
    figure.supylabel("difference of the other reward", fontsize=8)
    count = max(len(x) for _, x, _ in shown)
    return Drawn(
        figure,
        f"Does another reward prefer the images that {source.primary} prefers? Each point is an "
        "image of a trained arm less that of the base model for the same prompt and noise "
        f"({count} at most, of which up to {POINTS} are drawn); crosses where the two disagree. "
        "Shares of agreement, of pairs that neither calls a tie, and Spearman's rank correlation "
        f"come without an interval.{more} {source.tail()}",
    )


def _pairs(source: Source, reward: str) -> Array:
    """Differences of all images of trained arms with those of the base model."""
    scores = source.scores[reward]
    return np.concatenate([(scores[arm] - scores[source.base()]).ravel() for arm in source.arms()])


def _known(x: Array, y: Array) -> tuple[Array, Array]:
    known = ~np.isnan(x - y)
    return x[known], y[known]


FIGURE = Figure("agreement", "Score against score", draw)
