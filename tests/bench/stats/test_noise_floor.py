"""Verdicts with a bound from the A/A control."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from bench.stats import (
    Interval,
    crossed_interval,
    noise_floor,
    tost_equivalent,
    verdict,
)


def interval(mean: float, se: float = 0.1, df: float = 10.0, n_seeds: int = 5) -> Interval:
    """An interval with given mean, se and df, as of complete data."""
    half = float(stats.t.ppf(0.975, df)) * se
    p_value = float(2 * stats.t.sf(abs(mean) / se, df)) if se else float(mean == 0)
    return Interval(
        mean=mean,
        low=mean - half,
        high=mean + half,
        se=se,
        df=df,
        p_value=p_value,
        confidence=0.95,
        n_seeds=n_seeds,
        n_prompts=50,
        n_missing=0,
        missing_share=0.0,
        dropped_seeds=0,
        dropped_prompts=0,
        share_seed=0.5,
        share_prompt=0.3,
        share_residual=0.2,
        conditional=n_seeds == 1,
    )


def word(i: Interval, delta0: float = 0.1, missing: float = 0.0, alpha: float = 0.05) -> str:
    """The verdict of a family of one."""
    return verdict(i, i.p_value, delta0, missing, alpha).word


def test_tost_is_the_ninety_percent_interval_strictly_inside() -> None:
    """Mean 0.05, se 0.1, df 10: the 90 % bound is 0.05 + 1.8125 x 0.1 = 0.23125."""
    i = interval(0.05)
    assert stats.t.ppf(0.95, 10) == pytest.approx(1.8125, abs=1e-4)
    assert tost_equivalent(i, 0.2313)
    assert not tost_equivalent(i, 0.2312)
    assert tost_equivalent(interval(-0.05), 0.2313)
    assert not tost_equivalent(interval(-0.05), 0.2312)
    assert not tost_equivalent(i, 0.2313, alpha=0.025)


def test_tost_agrees_with_two_one_sided_tests_of_scipy() -> None:
    """S = 1: both one-sided t-tests against -+delta0 reject just where the band is wide enough."""
    row = np.random.default_rng(1).normal(0.05, 0.3, 40)
    i = crossed_interval(row[None])
    for delta0 in np.linspace(0.02, 0.3, 57):
        lower = stats.ttest_1samp(row, -delta0, alternative="greater").pvalue
        upper = stats.ttest_1samp(row, delta0, alternative="less").pvalue
        assert tost_equivalent(i, float(delta0)) == (max(lower, upper) < 0.05)


def test_noise_floor_is_the_95_percent_half_width_at_any_level() -> None:
    """From the 2 x 2 case with se = sqrt(3), df = 144/98, whatever level was asked for."""
    d = [[1, 2], [3, 6]]
    expected = stats.t.ppf(0.975, 144 / 98) * 3**0.5
    assert noise_floor(crossed_interval(d)) == pytest.approx(expected)
    assert noise_floor(crossed_interval(d, 0.8)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least 2 training seeds"):
        noise_floor(crossed_interval([[1, 2]]))


@pytest.mark.parametrize(
    ("mean", "delta0", "expected"),
    [
        (0.5, 0.1, "helps"),
        (-0.5, 0.1, "hurts"),
        (0.1, 0.3, "equivalent"),
        (0.1, 0.2, "inconclusive"),
        (0.0, 0.0, "inconclusive"),
    ],
)
def test_verdict_words(mean: float, delta0: float, expected: str) -> None:
    """With se 0.1 and df 10: significant beyond 0.223; the 90 % half-width is 0.181."""
    assert word(interval(mean), delta0) == expected


def test_verdict_uses_the_corrected_p() -> None:
    """Significant alone (p = 0.031), not after correction."""
    i = interval(0.25)
    assert word(i) == "helps"
    assert verdict(i, 0.06, 0.1, 0.0).word == "inconclusive"
    assert word(i, alpha=0.01) == "inconclusive"


def test_verdict_says_when_a_real_effect_is_small() -> None:
    """Significant and inside the band at once."""
    got = verdict(interval(0.25), 0.04, 0.5, 0.0)
    assert got.word == "helps"
    assert "smaller than the effect of interest" in got.reason
    assert "smaller" not in verdict(interval(0.5), 0.04, 0.5, 0.0).reason


def test_identical_arms_are_equivalent_even_without_a_band() -> None:
    """Every difference exactly 0; a constant difference is not the same thing."""
    assert word(crossed_interval(np.zeros((3, 5))), delta0=0.0) == "equivalent"
    assert word(crossed_interval(np.full((3, 5), 0.1)), delta0=0.0) == "helps"


def test_one_seed_is_never_a_verdict() -> None:
    """However clear, and even for identical arms."""
    assert word(interval(5.0, n_seeds=1)) == "conditional"
    assert word(crossed_interval(np.zeros((1, 5)))) == "conditional"


def test_two_seeds_are_named() -> None:
    """In the reason of every verdict they can lead to."""
    for mean, delta0 in ((0.5, 0.1), (0.1, 0.3), (0.1, 0.2)):
        two, five = interval(mean, n_seeds=2), interval(mean)
        assert "only 2 training seeds" in verdict(two, two.p_value, delta0, 0.0).reason
        assert "only 2" not in verdict(five, five.p_value, delta0, 0.0).reason


def test_missing_pairs_block() -> None:
    """Above 1 %, whether the caller or the interval counted them; before anything else."""
    assert word(interval(0.5), missing=0.01) == "helps"
    assert word(interval(0.5), missing=0.0101) == "blocked"
    assert word(dataclasses.replace(interval(0.5), missing_share=0.02)) == "blocked"
    assert word(interval(0.5, n_seeds=1), missing=0.5) == "blocked"


@pytest.mark.parametrize(
    ("p_adjusted", "delta0", "missing", "alpha", "message"),
    [
        (0.001, 0.1, 0.0, 0.05, "p_adjusted >= unadjusted"),
        (1.5, 0.1, 0.0, 0.05, "p_adjusted in"),
        (float("nan"), 0.1, 0.0, 0.05, "p_adjusted in"),
        (0.5, -0.1, 0.0, 0.05, "delta0 >= 0"),
        (0.5, float("nan"), 0.0, 0.05, "delta0 >= 0"),
        (0.5, 0.1, 3.0, 0.05, "missing_share"),
        (0.5, 0.1, 0.0, 5.0, "alpha in"),
    ],
)
def test_verdict_refuses(
    p_adjusted: float, delta0: float, missing: float, alpha: float, message: str
) -> None:
    """Out of range, percentages, or the p of another comparison."""
    with pytest.raises(ValueError, match=message):
        verdict(interval(0.1), p_adjusted, delta0, missing, alpha)
