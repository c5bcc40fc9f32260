"""Win rate of *on* against its own paired *off*: wins, ties, losses and an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.stats.cells import FloatArray, average_images, complete_cells, image_differences
from bench.stats.crossed import crossed_interval


@dataclass(frozen=True)
class WinRate:
    """Win rate over the prompts with complete cells; a tie is half a win.

    Attributes:
        rate: Mean outcome, in [0, 1]; 0.5 = no preference.
        low: Lower bound, in [0, 1].
        high: Upper bound, in [0, 1].
        p_value: Two-sided p against 0.5, in [0, 1].
        confidence: Level of the bounds.
        wins: Image pairs where *on* scores higher.
        ties: Image pairs within ``eps``.
        losses: Image pairs where *off* scores higher.
        n_seeds: Training seeds analysed.
        n_prompts: Prompts analysed.
        n_missing: Missing image pairs of the input; the counts above leave these out, and every
            image of a dropped prompt.
        method: ``crossed``: seeds x prompts; ``wilson``: prompts only, which is *conditional on
            these training runs*.
    """

    rate: float
    low: float
    high: float
    p_value: float
    confidence: float
    wins: int
    ties: int
    losses: int
    n_seeds: int
    n_prompts: int
    n_missing: int
    method: Literal["crossed", "wilson"]


def win_matrix(on: ArrayLike, off: ArrayLike, eps: float = 0.0) -> FloatArray:
    """Outcome of each image pair: 1 win, 0.5 tie, 0 loss, NaN missing.

    Args:
        on: Scores with the component, higher is better, shape ``(S, P)`` or ``(S, P, K)``.
        off: Scores without it, same shape.
        eps: Tie band: ``|on - off| <= eps`` is a tie. The measured noise of the scorer, score
            units, >= 0.

    Returns:
        Outcomes, same shape.

    Raises:
        ValueError: If the shapes do not match or ``eps`` is negative or not finite.
    """
    if not (np.isfinite(eps) and eps >= 0):
        raise ValueError(f"expected a finite eps >= 0, got {eps}; use 0 to count only exact ties")
    d = image_differences(on, off)
    decided = np.where(np.abs(d) <= eps, 0.5, np.where(d > 0, 1.0, 0.0))
    return np.where(np.isnan(d), np.nan, decided)


def win_rate(on: ArrayLike, off: ArrayLike, eps: float = 0.0, confidence: float = 0.95) -> WinRate:
    """Win rate with the crossed interval of the outcomes around 0.5, clipped to [0, 1].

    Outcomes are averaged over the K images of a cell before the analysis: images are replicates,
    not observations. Where the crossed interval cannot be used the interval is Wilson's (1927)
    with the score test, the prompts being the sample: with one training seed, and where every pair
    is won or every pair is lost, since no variance is then seen and the crossed interval would
    shrink to a point. With ties Wilson's binomial variance is an upper bound.

    Args:
        on: Scores with the component, higher is better, shape ``(S, P)`` or ``(S, P, K)``.
        off: Scores without it, same shape.
        eps: Tie band, score units, >= 0.
        confidence: Level, in (0, 1).

    Returns:
        Rate, interval, test and counts.

    Raises:
        ValueError: If the shapes, ``eps`` or ``confidence`` are bad, or fewer than 2 complete
            prompts or no seed remain.
    """
    outcomes = win_matrix(on, off, eps)
    averaged = average_images(outcomes)
    interval = crossed_interval(averaged - 0.5, confidence)
    cells = complete_cells(averaged)
    kept = outcomes[np.ix_(cells.seeds, cells.prompts)]
    rate, low, high = (0.5 + x for x in (interval.mean, interval.low, interval.high))
    p_value = interval.p_value
    method: Literal["crossed", "wilson"] = "crossed"
    if interval.conditional or rate in (0.0, 1.0):
        method = "wilson"
        low, high = wilson(rate, interval.n_prompts, confidence)
        p_value = float(2 * stats.norm.sf(abs(interval.mean) * 2 * np.sqrt(interval.n_prompts)))
    return WinRate(
        rate=rate,
        low=max(low, 0.0),
        high=min(high, 1.0),
        p_value=p_value,
        confidence=confidence,
        wins=int((kept == 1.0).sum()),
        ties=int((kept == 0.5).sum()),
        losses=int((kept == 0.0).sum()),
        n_seeds=interval.n_seeds,
        n_prompts=interval.n_prompts,
        n_missing=int(np.isnan(outcomes).sum()),
        method=method,
    )


def wilson(rate: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval for a proportion (Wilson 1927).

    Args:
        rate: Observed proportion, in [0, 1]; need not be a multiple of 1/n.
        n: Independent observations, >= 1.
        confidence: Level, in (0, 1).

    Returns:
        ``(low, high)``, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """
    if not (0 <= rate <= 1 and n >= 1 and 0 < confidence < 1):
        raise ValueError(
            f"expected rate in [0, 1], n >= 1 and confidence in (0, 1), got {rate}, {n} and "
            f"{confidence}; give the rate as a fraction"
        )
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)))
    return max(centre - half, 0.0), min(centre + half, 1.0)
