"""Differences measured against an established gain: equivalence within a share of it, per cent.

A share of a gain is a bound that scales with what the experiment shows at all. The gain is itself
estimated, so it is never plugged in: D - rho G is formed cell by cell, seed x prompt, and tested as
any other difference. Its interval then carries the noise of both, and of what they share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from bench.stats.cells import FloatArray, complete_cells
from bench.stats.crossed import Interval
from bench.stats.moderated import SeedNoise, moderated_interval, moderated_p

MIN_SEEDS = 3
"""Fewer training seeds decide nothing: no verdict, no equivalence, no share of a gain."""


@dataclass(frozen=True)
class ShareOfGain:
    """A difference as a share of a gain; 1 is the whole gain. With ``low <= share <= high``.

    Attributes:
        share: Mean difference over mean gain.
        low: Lower bound.
        high: Upper bound.
        confidence: Level of the bounds, unadjusted for any family, in (0, 1).
    """

    share: float
    low: float
    high: float
    confidence: float


def within_bound(d: ArrayLike, bound: float, noise: SeedNoise, alpha: float = 0.05) -> bool:
    """Is ``|mean| < bound`` shown, by two one-sided tests (Schuirmann 1987)?

    Both reject at level alpha just when the ``1 - 2 alpha`` interval, 90 % at alpha = 0.05, lies
    strictly inside ``(-bound, bound)``.

    Args:
        d: Paired differences, shape ``(S, P)``, score units; a non-finite value is missing.
        bound: Largest difference that counts as none, score units, > 0, declared beforehand.
        noise: Seed noise of the family of ``d``.
        alpha: Level of each test, in (0, 0.5).

    Returns:
        Whether it is shown; never with fewer than 3 seeds.

    Raises:
        ValueError: If an argument is out of range or too few complete cells remain.
    """
    if not (np.isfinite(bound) and bound > 0):
        raise ValueError(f"expected a finite bound > 0 in score units, got {bound}")
    interval = _one_sided(d, noise, alpha)
    return interval.n_seeds >= MIN_SEEDS and -bound < interval.low <= interval.high < bound


def within_share(
    d: ArrayLike, gain: ArrayLike, share: float, noise: SeedNoise, alpha: float = 0.05
) -> bool:
    """Is ``|mean of d| < share x mean of gain`` shown, by two one-sided tests?

    One test each on the cells of ``d - share gain`` (mean below 0) and ``d + share gain`` (above).
    Both rejecting at level alpha shows it at level alpha (intersection-union; Berger 1982), the
    uncertainty of the gain included.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.
        gain: Paired differences that make up the gain, same seeds, prompts and units.
        share: Largest share of the gain that counts as none, in (0, 1), declared beforehand.
        noise: Seed noise of the family of both.
        alpha: Level of each test, in (0, 0.5).

    Returns:
        Whether it is shown; never with fewer than 3 seeds.

    Raises:
        ValueError: If an argument is out of range, the shapes differ or too few complete cells
            remain.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share in (0, 1), got {share}; write 20 % as 0.2")
    x, g = _matched(d, gain)
    below = _one_sided(x - share * g, noise, alpha)
    above = _one_sided(x + share * g, noise, alpha)
    return below.n_seeds >= MIN_SEEDS and below.high < 0 < above.low


def share_of_gain(
    d: ArrayLike, gain: ArrayLike, noise: SeedNoise, confidence: float = 0.95
) -> ShareOfGain | None:
    """The mean of ``d`` as a share of the mean of ``gain``, with an interval (Fieller 1954).

    The interval holds every rho at which a mean of 0 of ``d - rho gain`` is not rejected. It is
    bounded just where the gain's own interval excludes 0.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.
        gain: Paired differences that make up the gain, same seeds, prompts and units.
        noise: Seed noise of the family of both.
        confidence: Level, in (0, 1).

    Returns:
        The share, or None with fewer than 3 seeds, or where the gain is not shown to be positive at
        this level: it then has no bounded interval.

    Raises:
        ValueError: If an argument is out of range, the shapes differ or too few complete cells
            remain.
    """
    x, g = _matched(d, gain)
    whole = moderated_interval(g, noise, confidence)
    if whole.n_seeds < MIN_SEEDS or not whole.low > 0:
        return None
    centre = float(x.mean()) / whole.mean

    def accepted(rho: float) -> float:
        return moderated_p(x - rho * g, noise) - (1.0 - confidence)

    spread = moderated_interval(x - centre * g, noise, confidence)
    step = (spread.high - spread.low) / 2 / whole.mean
    if step <= 1e-12 * max(1.0, abs(centre)):  # proportional in every cell
        return ShareOfGain(centre, centre, centre, confidence)
    low, high = (_edge(accepted, centre, sign * step) for sign in (-1.0, 1.0))
    return ShareOfGain(centre, low, high, confidence)


def _one_sided(d: ArrayLike, noise: SeedNoise, alpha: float) -> Interval:
    """The interval whose bounds are those of two tests at level alpha each."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"expected alpha in (0, 0.5), got {alpha}; write 5 % as 0.05")
    return moderated_interval(d, noise, 1 - 2 * alpha)


def _matched(d: ArrayLike, gain: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both on the seeds and prompts that are complete in both."""
    x, g = np.array(d, dtype=np.float64), np.array(gain, dtype=np.float64)
    if x.shape != g.shape:
        raise ValueError(
            f"expected a gain over the same seeds and prompts, got {g.shape} beside {x.shape}; "
            "align both on the same keys, with NaN for what is missing"
        )
    cells = complete_cells(np.where(np.isfinite(x) & np.isfinite(g), 0.0, np.nan))
    kept = np.ix_(cells.seeds, cells.prompts)
    return x[kept], g[kept]


def _edge(accepted: Callable[[float], float], centre: float, step: float) -> float:
    """Where ``accepted`` falls to 0, going out from the centre; it does, as the gain is not 0."""
    inside, outside = centre, centre + step
    while accepted(outside) > 0:
        inside, outside = outside, outside + 2.0 * (outside - centre)
    return float(optimize.brentq(accepted, inside, outside, xtol=1e-9 * abs(step), rtol=1e-9))
