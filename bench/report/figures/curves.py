"""What was logged of training, as curves over steps: means of bins, and the range over seeds."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.figures.source import Source
from bench.report.figures.style import Look
from bench.results.analysis import Array

BINS = 20


class Curve(NamedTuple):
    """Means over seeds at some steps, and the lowest and the highest seed."""

    steps: Array
    mean: Array
    low: Array
    high: Array


def curve(rows: pd.DataFrame, values: "pd.Series[float]", bins: int = BINS) -> Curve | None:
    """A curve of one arm, its steps in bins of equal width; None where nothing was logged.

    Args:
        rows: The arm's, with ``seed`` and ``step``.
        values: Of the same rows.
        bins: How many, at most; fewer steps than that stay apart.
    """
    known = values.notna()
    if not known.any():
        return None
    steps = rows.loc[known, "step"]
    width = max(1, -(-int(rows["step"].max()) // bins))
    frame = pd.DataFrame(
        {"seed": rows.loc[known, "seed"], "bin": (steps - 1) // width, "step": steps,
         "value": values[known]}
    )  # fmt: skip
    by_seed = frame.groupby(["bin", "seed"])["value"].mean().groupby("bin")
    at = frame.groupby("bin")["step"].mean()
    return Curve(*(np.asarray(x, float) for x in (at, by_seed.mean(), by_seed.min(),
                                                  by_seed.max())))  # fmt: skip


def plot(axes: Axes, found: Curve, look: Look, label: str, markers: bool = False) -> None:
    """Draw a curve and its range."""
    axes.plot(found.steps, found.mean, color=look.color, linestyle=look.linestyle, label=label,
              marker=look.marker if markers or len(found.steps) == 1 else None)  # fmt: skip
    axes.fill_between(found.steps, found.low, found.high, color=look.color, alpha=0.1, linewidth=0)


def of_arm(source: Source, arm: str) -> pd.DataFrame:
    """The steps of an arm; none, where there are none."""
    assert source.steps is not None
    return source.steps[source.steps["arm"] == arm]


def sums(rows: pd.DataFrame, column: str) -> Array:
    """A column of tenths as ``[rows, 10]``, NaN where it is null."""
    nothing = np.full(10, np.nan)
    return np.array([nothing if ten is None else ten for ten in rows[column]]).reshape(-1, 10)
