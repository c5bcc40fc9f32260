"""Training curves."""

from collections.abc import Sequence

from bench.report.figures import curves
from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, few
from bench.report.figures.style import GREY, looks, named, panels

MOST = 8
SHOWN = {
    "loss": "loss",
    "accuracy": "share of pairs ranked correctly",
    "margin": "margin of the implicit reward",
    "grad_norm": "gradient norm",
}


def draw(sources: Sequence[Source]) -> Drawn:
    """Loss, accuracy, margin and gradient norm against steps."""
    source = sources[0]
    if source.steps is None or source.steps.empty:
        raise Undrawn("the folder holds no steps")
    logged = {*source.steps["arm"]}
    arms, more = few([arm for arm in source.arms() if arm in logged], MOST, "arms")
    figure, axes = panels(2, 2, 2.1)
    for panel, (column, title) in zip(axes, SHOWN.items(), strict=True):
        for arm, look in zip(arms, looks(len(arms)), strict=True):
            rows = curves.of_arm(source, arm)
            if (found := curves.curve(rows, rows[column])) is not None:
                curves.plot(panel, found, look, named(arm))
        panel.set_title(title)
        panel.set_xlabel("optimiser steps")
    axes[1].axhline(0.5, color=GREY, linewidth=0.8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return Drawn(
        figure,
        "Training: means over training seeds, bands from the lowest to the highest seed, steps in "
        f"up to {curves.BINS} bins. Losses of different objectives are not comparable.{more} "
        f"{source.tail()}",
    )


FIGURE = Figure("training", "Training curves", draw)
