"""Two sets of scores that share no prompts: the difference of their means."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from bench.stats.crossed import Interval


@dataclass(frozen=True)
class Unpaired:
    """The difference of two means that have nothing in common.

    Attributes:
        mean: Second less first, score units.
        low: Lower bound.
        high: Upper bound.
        p_value: Two-sided p against 0, in [0, 1].
    """

    mean: float
    low: float
    high: float
    p_value: float


def unpaired(first: Interval, second: Interval) -> Unpaired:
    """Welch's (1947) interval from two crossed ones, at the level of the first.

    Args:
        first: Of the mean of one set.
        second: Of the mean of the other, independent of it.

    Returns:
        The difference; with variance 0 on both sides p is 1 if it is 0, and else 0.
    """
    mean = second.mean - first.mean
    parts = (first.se**2, second.se**2)
    variance = sum(parts)
    if variance == 0:
        return Unpaired(mean, mean, mean, float(mean == 0))
    df = variance**2 / (parts[0] ** 2 / first.df + parts[1] ** 2 / second.df)
    se = variance**0.5
    half = float(stats.t.ppf(0.5 + first.confidence / 2, df)) * se
    p_value = float(2 * stats.t.sf(abs(mean) / se, df))
    return Unpaired(mean, mean - half, mean + half, p_value)
