"""From the matrices of a family to words: multiplicity, equivalence, advice and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.cells import FloatArray
from bench.stats.crossed import Interval
from bench.stats.gain import MIN_SEEDS, ShareOfGain, share_of_gain, within_bound, within_share
from bench.stats.moderated import SeedNoise, moderated_interval, seed_noise

VerdictWord = Literal["helps", "hurts", "equivalent", "inconclusive", "conditional", "blocked"]
MAX_MISSING_SHARE = 0.01
"""Above this share of missing image pairs there is no verdict."""


@dataclass(frozen=True)
class Verdict:
    """The word printed in a table and the sentence that justifies it."""

    word: VerdictWord
    reason: str


_TOO_FEW = Verdict("blocked", "too few complete pairs")


@dataclass(frozen=True)
class Judgement:
    """All that is said of one comparison of a family.

    Attributes:
        interval: Moderated interval, level ``1 - alpha``, and its p-value, both unadjusted for the
            family; None if no matrix was given.
        p_adjusted: The p-value of ``interval`` after Holm's correction over the whole family, in
            [0, 1]; None if the comparison cannot be decided: blocked, or fewer than 3 seeds.
        verdict: The word and its reason.
        of_gain: The difference as a share of the gain, level ``1 - alpha``, unadjusted; None where
            no gain was named or it is not established, and for the gain itself.
    """

    interval: Interval | None
    p_adjusted: float | None
    verdict: Verdict
    of_gain: ShareOfGain | None


def holm(p_values: ArrayLike) -> FloatArray:
    """Step-down adjusted p-values (Holm 1979), in the order given.

    With p sorted ascending, ``adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))``. Controls the
    family-wise error under any dependence.

    Args:
        p_values: The whole pre-declared family, shape ``(m,)``, each in [0, 1]; 1 for a member that
            cannot be tested.

    Returns:
        Adjusted p-values, shape ``(m,)``, each in [0, 1] and not below its input.

    Raises:
        ValueError: If the shape is not one-dimensional or a value is NaN or outside [0, 1].
    """
    p = np.array(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"expected a list of p-values in [0, 1], got {p}; a comparison that cannot be tested "
            "stays in the family with a p-value of 1"
        )
    order = np.argsort(p)
    stepped = np.minimum(1.0, np.arange(p.size, 0, -1) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted


def advice(interval: Interval) -> Literal["add seeds", "add prompts"]:
    """What would shorten the interval most.

    The residual shrinks alike with both, so the larger of the seed and the prompt share of the
    variance of the mean decides. Below 3 seeds the answer is seeds: nothing is decided there.
    """
    if interval.n_seeds < MIN_SEEDS or interval.share_seed >= interval.share_prompt:
        return "add seeds"
    return "add prompts"


def judge(
    family: Sequence[ArrayLike | None],
    missing: Sequence[float],
    *,
    gain: int | None = None,
    share: float | None = None,
    bound: float | None = None,
    alpha: float = 0.05,
) -> list[Judgement]:
    """A verdict for every declared comparison on the primary metric.

    The p-values are those of :func:`bench.stats.moderated_interval`, adjusted by Holm over the
    whole family; a comparison without a decision enters with 1. The word is the first that applies:

    1. ``blocked``: no matrix, or more than 1 % of the planned image pairs are missing.
    2. ``conditional``: one training seed; never a verdict on the component.
    3. ``equivalent``: the arms are identical (every difference exactly 0).
    4. ``inconclusive``: two training seeds; neither a difference nor its absence is shown by two.
    5. ``helps`` / ``hurts``: the adjusted p is below alpha. The reason says so if the difference is
       also shown to lie within the bound: it is there, and too small to matter.
    6. ``equivalent``: the difference is shown to lie within the declared bound, by two one-sided
       tests at level alpha, unadjusted: all comparisons may be equivalent at once, and the error
       controlled is that of each.
    7. ``inconclusive``: anything else, never "no effect". A share of a gain bounds nothing unless
       the gain is established, that is, its own comparison has the word ``helps``.

    Args:
        family: For each declared comparison the paired differences on - off, shape ``(S, P)``,
            higher being better; same seeds, prompts and order in all, a non-finite value is
            missing. None if too few pairs are complete to compare.
        missing: For each comparison the missing share of the planned image pairs, in [0, 1]; the
            share of missing cells counts if it is larger.
        gain: Index in the family of the comparison that measures the gain; needed for ``share``.
        share: Bound of equivalence as a share of that gain, in (0, 1).
        bound: Bound of equivalence in score units, > 0. Without either nothing is equivalent but
            identical arms.
        alpha: Family-wise level of helps and hurts, and level of each one-sided test, in (0, 0.5).

    Returns:
        One judgement for each comparison, in the order given.

    Raises:
        ValueError: If an argument is out of range or the lengths differ.
    """
    _check(family, missing, gain, share, bound, alpha)
    noise = seed_noise(d for d in family if d is not None)
    intervals = [None if d is None else moderated_interval(d, noise, 1 - alpha) for d in family]
    early = [_untested(i, lost) for i, lost in zip(intervals, missing, strict=True)]
    adjusted = holm(
        [1.0 if i is None or e else i.p_value for i, e in zip(intervals, early, strict=True)]
    ).tolist()
    yardstick = None  # the matrix of the gain, once it is established
    if gain is not None and adjusted[gain] < alpha:
        whole = intervals[gain]
        yardstick = family[gain] if whole is not None and whole.mean > 0 else None
    words = _bound_in_words(share, bound, established=yardstick is not None)
    found: list[Judgement] = []
    for index, (d, interval, said) in enumerate(zip(family, intervals, early, strict=True)):
        p, of_gain = None, None
        if d is not None and yardstick is not None and index != gain:
            of_gain = share_of_gain(d, yardstick, noise, 1 - alpha)
        if d is not None and interval is not None and said is None:
            p = adjusted[index]
            within = _within(d, yardstick, share, bound, noise, alpha)
            said = _tested(interval, p, within, words, alpha)
        found.append(Judgement(interval, p, said or _TOO_FEW, of_gain))
    return found


def _check(
    family: Sequence[ArrayLike | None],
    missing: Sequence[float],
    gain: int | None,
    share: float | None,
    bound: float | None,
    alpha: float,
) -> None:
    if len(family) != len(missing) or not all(0 <= m <= 1 for m in missing):
        raise ValueError(
            f"expected a missing share in [0, 1] for each of {len(family)} comparisons, got "
            f"{list(missing)}; give shares as fractions"
        )
    if gain is not None and not 0 <= gain < len(family):
        raise ValueError(f"expected the index of a comparison, 0 to {len(family) - 1}, got {gain}")
    if share is not None and (gain is None or bound is not None):
        raise ValueError("expected a share with its gain, or a bound; declare one of the two")
    if not 0 < alpha < 0.5:
        raise ValueError(f"expected alpha in (0, 0.5), got {alpha}; write 5 % as 0.05")
    if (share is not None and not 0 < share < 1) or (
        bound is not None and not (np.isfinite(bound) and bound > 0)
    ):
        raise ValueError(
            f"expected a share in (0, 1) or a finite bound > 0, got {share} and {bound}; "
            "write 20 % as 0.2"
        )


def _untested(interval: Interval | None, missing: float) -> Verdict | None:
    """The words that come before any test, or None."""
    if interval is None:
        return _TOO_FEW
    lost = max(missing, interval.missing_share)
    if lost > MAX_MISSING_SHARE:
        return Verdict("blocked", f"{lost:.1%} of the pairs are missing, above 1 %")
    if interval.conditional:
        return Verdict("conditional", "conditional on one training run; add seeds")
    if interval.mean == 0 and interval.se == 0:
        return Verdict("equivalent", "the arms are identical: every difference is 0")
    if interval.n_seeds < MIN_SEEDS:
        return Verdict("inconclusive", "two training seeds decide nothing; add seeds")
    return None


def _within(
    d: ArrayLike,
    gain: ArrayLike | None,
    share: float | None,
    bound: float | None,
    noise: SeedNoise,
    alpha: float,
) -> bool:
    if bound is not None:
        return within_bound(d, bound, noise, alpha)
    return share is not None and gain is not None and within_share(d, gain, share, noise, alpha)


def _bound_in_words(share: float | None, bound: float | None, established: bool) -> tuple[str, str]:
    """What is said of a difference that is within the bound, and of one not shown to be."""
    if bound is not None:
        limit = f"shown within +-{bound:.3g}"
    elif share is None:
        return "", "no bound of equivalence is declared"
    elif not established:
        return "", "the gain is not established, so that no share of it is a bound"
    else:
        limit = f"shown within +-{share:.0%} of the gain"
    return limit, f"not {limit}"


def _tested(
    interval: Interval, p: float, within: bool, words: tuple[str, str], alpha: float
) -> Verdict:
    """The words that tests decide."""
    inside, not_inside = words
    if p < alpha:
        small = f", but {inside}: smaller than what was declared to matter" if within else ""
        word: VerdictWord = "helps" if interval.mean > 0 else "hurts"
        return Verdict(word, f"adjusted p = {p:.2g} < {alpha:g}{small}")
    if within:
        return Verdict("equivalent", f"{inside}, by two tests at {alpha:.0%}")
    return Verdict("inconclusive", f"adjusted p = {p:.2g} and {not_inside}; {advice(interval)}")
