"""What training sees along the timesteps, and lambda(t) (Kang et al. 2025, Figure 2)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.figures import curves
from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, few
from bench.report.figures.style import GREY, Look, looks, named, panels
from bench.results.analysis import Array

MOST = 8
TENTHS = np.arange(10) / 10 + 0.05


def draw(sources: Sequence[Source]) -> Drawn:
    """Error, margin and accuracy by tenth of the timesteps, and the reward scales."""
    source = sources[0]
    if source.steps is None or source.steps.empty:
        raise Undrawn("the folder holds no steps")
    logged = {*source.steps["arm"]}
    arms, more = few([arm for arm in source.arms() if arm in logged], MOST, "arms")
    figure, (error, margin, right, scale) = panels(2, 2, 2.1)
    for place, (arm, look) in enumerate(zip(arms, looks(len(arms)), strict=True)):
        at = TENTHS + 0.006 * (place - (len(arms) - 1) / 2)  # So that no bar hides another.
        rows = curves.of_arm(source, arm)
        rows = rows[rows["step"] > rows["step"].max() / 2]
        parts = {name: curves.sums(rows, f"decile_{name}") for name in SUMMED}
        plot = partial(_plot, at=at, rows=rows, look=look, label=named(arm))
        plot(error, total=parts["error_winner"], count=parts["winners"])
        gained = (parts["reference_error_winner"] - parts["error_winner"]) - (
            parts["reference_error_loser"] - parts["error_loser"]
        )
        plot(margin, total=gained, count=parts["pairs"])
        plot(right, total=parts["correct"], count=parts["pairs"])
        if source.scales is not None:
            own = source.scales[source.scales["arm"] == arm]
            scale.plot(
                own["timestep"] / own["timestep"].max(),
                own["scale"],
                color=look.color,
                linestyle=look.linestyle,
            )
    error.set_yscale("log")
    error.yaxis.set_major_formatter("{x:g}")
    right.axhline(0.5, color=GREY, linewidth=0.8)
    margin.axhline(0, color=GREY, linewidth=0.8)
    titles = ("denoising error of preferred images (log)", "margin of the implicit reward",
              "share of pairs ranked correctly", "lambda(t), the factor on beta")  # fmt: skip
    for panel, title in zip((error, margin, right, scale), titles, strict=True):
        panel.set_title(title)
        panel.set_xlabel("timestep / T (1: pure noise)")
        panel.set_xlim(0, 1)
    handles, labels = error.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return Drawn(
        figure,
        "By tenth of the timesteps, on the training pairs of the second half of the steps: means "
        f"over training seeds, bars from the lowest to the highest seed.{more} {source.tail()}",
    )


SUMMED = ("error_winner", "error_loser", "reference_error_winner", "reference_error_loser",
          "winners", "pairs", "correct")  # fmt: skip


def _plot(
    axes: Axes, at: Array, rows: pd.DataFrame, total: Array, count: Array, look: Look, label: str
) -> None:
    """Means by tenth, of sums and counts of single steps."""
    by_seed = by_tenth(rows, total, count)
    if not len(by_seed) or np.isnan(by_seed).all():
        return
    known = ~np.isnan(by_seed).all(axis=0)
    mean = seed_mean(by_seed)[known]
    low, high = (f(by_seed[:, known], axis=0) for f in (np.nanmin, np.nanmax))
    axes.errorbar(
        at[known], mean, (mean - low, high - mean), color=look.color, linestyle=look.linestyle,
        marker=look.marker, markersize=3, elinewidth=0.7, label=label,
    )  # fmt: skip


def by_tenth(rows: pd.DataFrame, total: Array, count: Array) -> Array:
    """Sums over counts ``[S, 10]`` by training seed, NaN where nothing was counted."""
    seeds = rows["seed"].to_numpy()
    found = []
    for seed in dict.fromkeys(seeds.tolist()):
        n = np.nansum(count[seeds == seed], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(n > 0, total[seeds == seed].sum(axis=0) / n, np.nan))
    return np.array(found).reshape(-1, 10)


def seed_mean(by_seed: Array) -> Array:
    """Means over training seeds ``[10]``, NaN where no seed has one."""
    count = (~np.isnan(by_seed)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.nansum(by_seed, axis=0) / count, np.nan)


FIGURE = Figure("deciles", "Along the timesteps", draw)
