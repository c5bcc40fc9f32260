"""Verdicts with a bound taken from an A/A control; :mod:`bench.stats.decide` takes their place."""

from __future__ import annotations

import numpy as np
from scipy import stats

from bench.stats.crossed import Interval, check_confidence
from bench.stats.decide import MAX_MISSING_SHARE, Verdict, VerdictWord, advice


def tost_equivalent(interval: Interval, delta0: float, alpha: float = 0.05) -> bool:
    """Two one-sided tests (Schuirmann 1987): is the mean within the band around 0?

    Both tests reject at level alpha just when the ``1 - 2 alpha`` interval lies strictly inside
    ``(-delta0, delta0)``; at alpha = 0.05 that is the 90 % interval.

    Args:
        interval: Any crossed interval; only its mean, se and df are used.
        delta0: Smallest effect of interest, score units, >= 0.
        alpha: Level of each test, in (0, 0.5).

    Returns:
        Whether equivalence is shown; never for ``delta0 == 0``.

    Raises:
        ValueError: If ``delta0`` or ``alpha`` is out of range.
    """
    _check_delta0(delta0)
    if not 0 < alpha < 0.5:
        raise ValueError(f"expected alpha in (0, 0.5), got {alpha}; write 5 % as 0.05")
    return abs(interval.mean) + half_width(interval, 1 - 2 * alpha) < delta0


def noise_floor(control: Interval) -> float:
    """Half-width of the 95 % interval of an A/A control: the default ``delta0``.

    Args:
        control: Crossed interval of two arms that differ only in the training seed.

    Returns:
        Half-width, score units, >= 0.

    Raises:
        ValueError: If the control rests on one run: it then has no noise between runs in it.
    """
    if control.conditional:
        raise ValueError(
            "expected an A/A control over at least 2 training seeds, got 1; train the control "
            "with another seed or set delta0 in the spec"
        )
    return half_width(control, 0.95)


def half_width(interval: Interval, confidence: float) -> float:
    """Half-width of a crossed interval at another level, score units.

    Raises:
        ValueError: If ``confidence`` is not in (0, 1).
    """
    check_confidence(confidence)
    return float(stats.t.ppf(0.5 + confidence / 2, interval.df)) * interval.se


def verdict(
    interval: Interval,
    p_adjusted: float,
    delta0: float,
    missing_share: float,
    alpha: float = 0.05,
) -> Verdict:
    """One word for a component on the primary metric, the first of these that applies.

    1. ``blocked``: more than 1 % of the planned pairs are missing.
    2. ``conditional``: one training seed; never a verdict on the component.
    3. ``equivalent``: the arms are identical (every difference exactly 0).
    4. ``helps`` / ``hurts``: p after correction is below alpha. The reason says so if the effect is
       also shown to be smaller than ``delta0``.
    5. ``equivalent``: TOST within ``delta0``.
    6. ``inconclusive``: anything else. Not "no effect".

    Args:
        interval: Crossed interval of the component; higher is better.
        p_adjusted: Its p-value after correction over the family, in [0, 1].
        delta0: Smallest effect of interest, score units, >= 0.
        missing_share: Missing share of the planned image pairs, in [0, 1]; the interval's own
            share of missing cells counts if it is larger.
        alpha: Family-wise level and level of each one-sided test, in (0, 0.5).

    Returns:
        The word and its reason.

    Raises:
        ValueError: If an argument is out of range, or ``p_adjusted`` is below the unadjusted p.
    """
    _check_delta0(delta0)
    if not (0 <= missing_share <= 1 and 0 <= p_adjusted <= 1):
        raise ValueError(
            f"expected missing_share and p_adjusted in [0, 1], got {missing_share} and "
            f"{p_adjusted}; give shares as fractions"
        )
    if p_adjusted < interval.p_value * (1 - 1e-9):
        raise ValueError(
            f"expected p_adjusted >= unadjusted p = {interval.p_value:.3g}, got {p_adjusted:.3g}; "
            "a correction never lowers p: check that both belong to the same comparison"
        )
    inside = tost_equivalent(interval, delta0, alpha)
    missing = max(missing_share, interval.missing_share)
    if missing > MAX_MISSING_SHARE:
        return Verdict("blocked", f"{missing:.1%} of the pairs are missing, above 1 %")
    if interval.conditional:
        return Verdict("conditional", "conditional on one training run; add seeds")
    if interval.mean == 0 and interval.se == 0:
        return Verdict("equivalent", "the arms are identical: every difference is 0")
    few = "; only 2 training seeds" if interval.n_seeds == 2 else ""
    band = f"the {1 - 2 * alpha:.0%} interval lies within +-{delta0:.3g}"
    if p_adjusted < alpha:
        small = f", but {band}: smaller than the effect of interest" if inside else ""
        word: VerdictWord = "helps" if interval.mean > 0 else "hurts"
        return Verdict(word, f"adjusted p = {p_adjusted:.2g} < {alpha:g}{small}{few}")
    if inside:
        return Verdict("equivalent", f"{band}{few}")
    return Verdict(
        "inconclusive",
        f"adjusted p = {p_adjusted:.2g} and not shown within +-{delta0:.3g}; "
        f"{advice(interval)}{few}",
    )


def _check_delta0(delta0: float) -> None:
    if not (np.isfinite(delta0) and delta0 >= 0):
        raise ValueError(
            f"expected a finite delta0 >= 0, got {delta0}; take noise_floor of the A/A control"
        )
