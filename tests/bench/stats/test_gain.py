"""Bounds and shares of a gain: against scipy, by hand, and what less data does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bench.stats import (
    SeedNoise,
    moderated_interval,
    seed_noise,
    share_of_gain,
    within_bound,
    within_share,
)
from bench.stats.moderated import UNKNOWN, moderated_p

Array = NDArray[np.float64]


def pair(
    seed: int, n_seeds: int = 4, n_prompts: int = 80, mean: float = 0.0
) -> tuple[Array, Array]:
    """A difference and a gain of about 1, over the same arms: off, on, and the base below."""
    rng = np.random.default_rng(seed)
    off, on = (
        rng.normal(0, 0.05, (n_seeds, 1))
        + rng.normal(0, 0.5, n_prompts)
        + rng.normal(0, 0.5, (n_seeds, n_prompts))
        for _ in range(2)
    )
    return on - off + mean, off + 1.0 + rng.normal(0, 1, n_prompts)


def test_within_a_bound_is_two_one_sided_tests() -> None:
    """Seed means only, a family of one: scipy's t-tests against either bound."""
    rows = np.array([0.3, -0.1, 0.2, 0.25, 0.05])
    d = np.repeat(rows[:, None], 6, axis=1)
    answers = set()
    for bound in np.linspace(0.05, 0.6, 45):
        lower = stats.ttest_1samp(rows, -bound, alternative="greater").pvalue
        upper = stats.ttest_1samp(rows, bound, alternative="less").pvalue
        expected = max(lower, upper) < 0.05
        assert within_bound(d, float(bound), UNKNOWN) == expected
        answers.add(expected)
    assert answers == {True, False}


def test_within_a_share_tests_both_contrasts() -> None:
    """By the one-sided p of each, cell by cell; the first share that is shown lies inside."""
    d, gain = pair(1)
    noise = seed_noise([d, gain])
    answers = []
    for share in np.linspace(0.02, 0.6, 30):
        shown = True
        for sign in (-1, 1):
            contrast = d + sign * share * gain
            one_sided = moderated_p(contrast, noise) / 2
            shown &= bool(one_sided < 0.05 and sign * contrast.mean() > 0)
        assert within_share(d, gain, float(share), noise) == shown
        answers.append(shown)
    assert answers == sorted(answers)
    assert set(answers) == {True, False}


def test_the_uncertainty_of_the_gain_counts() -> None:
    """The same difference, within a fifth of a sure gain and not of an unsure one."""
    d, gain = pair(2)
    d = 0.2 * (d - d.mean())
    unsure = gain.mean() + 12 * (gain - gain.mean())
    assert within_share(d, gain, 0.2, UNKNOWN)
    assert not within_share(d, unsure, 0.2, UNKNOWN)
    assert within_bound(d, 0.2 * unsure.mean(), UNKNOWN)  # plugged in, it would seem so


def test_a_gain_is_not_within_a_share_of_itself() -> None:
    """And is all of itself, exactly."""
    _, gain = pair(3)
    assert not within_share(gain, gain, 0.9, UNKNOWN)
    got = share_of_gain(0.5 * gain, gain, UNKNOWN)
    assert got is not None
    assert (got.share, got.low, got.high) == pytest.approx((0.5, 0.5, 0.5))


def test_two_seeds_show_nothing() -> None:
    """However wide the bound, and however clear the gain."""
    d, gain = pair(4, n_seeds=2)
    noise = SeedNoise(1.0, 50.0)
    assert not within_bound(d, 1e6, noise)
    assert not within_share(d, 100 * gain, 0.9, noise)
    assert share_of_gain(d, 100 * gain, noise) is None
    d, gain = pair(4, n_seeds=3)
    assert within_bound(d, 1e6, noise)
    assert within_share(d, 100 * gain, 0.9, noise)
    assert share_of_gain(d, 100 * gain, noise) is not None


def test_fieller_of_seed_means_is_the_formula() -> None:
    """Seed effects only, a family of one: Fieller's quadratic in rho, t on S - 1.

    The bounds solve (x - rho g)^2 = t^2 (sxx - 2 rho sxg + rho^2 sgg) / S.
    """
    rng = np.random.default_rng(5)
    rows, gains = rng.normal(0.4, 0.2, 6), rng.normal(1, 0.2, 6)
    t2 = float(stats.t.ppf(0.975, 5)) ** 2 / 6
    (sxx, sxg), (_, sgg) = np.cov(rows, gains)
    x, g = rows.mean(), gains.mean()
    roots = np.roots([g**2 - t2 * sgg, -2 * (x * g - t2 * sxg), x**2 - t2 * sxx])
    got = share_of_gain(np.repeat(rows[:, None], 4, 1), np.repeat(gains[:, None], 4, 1), UNKNOWN)
    assert got is not None
    assert (got.low, got.high) == pytest.approx(sorted(roots), rel=1e-6)
    assert got.share == pytest.approx(x / g)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-1, 1))
def test_bounds_are_where_the_contrast_is_just_rejected(seed: int, mean: float) -> None:
    """p = 5 % at both, above inside; a share moves with the difference and turns with its sign."""
    d, gain = pair(seed, mean=mean)
    noise = seed_noise([d, gain])
    got = share_of_gain(d, gain, noise)
    assert got is not None
    for rho in (got.low, got.high):
        assert moderated_p(d - rho * gain, noise) == pytest.approx(0.05, abs=1e-6)
    assert moderated_p(d - (got.low + got.share) / 2 * gain, noise) > 0.05
    turned = share_of_gain(-d, gain, noise)
    moved = share_of_gain(d + 0.5 * gain, gain, noise)
    assert turned is not None and moved is not None
    assert (turned.low, turned.high) == pytest.approx((-got.high, -got.low), abs=1e-6)
    assert (moved.low, moved.high) == pytest.approx((got.low + 0.5, got.high + 0.5), abs=1e-6)


def test_no_share_of_a_gain_that_is_none() -> None:
    """Not shown to be positive: unbounded or upside down, so there is no figure."""
    d, gain = pair(6)
    assert share_of_gain(d, gain - gain.mean(), UNKNOWN) is None
    assert share_of_gain(d, -gain, UNKNOWN) is None
    whole = moderated_interval(gain, UNKNOWN)
    assert share_of_gain(d, gain - whole.low + 1e-3, UNKNOWN) is not None
    assert share_of_gain(d, gain - whole.low - 1e-3, UNKNOWN) is None


def test_missing_cells_of_either_are_dropped() -> None:
    """A prompt that is incomplete in one is left out of both."""
    d, gain = pair(7)
    holed, other = d.copy(), gain.copy()
    holed[1, 3], other[2, 5] = np.nan, np.inf
    rest = [np.delete(x, [3, 5], axis=1) for x in (d, gain)]
    expected = share_of_gain(*rest, UNKNOWN)
    assert share_of_gain(holed, other, UNKNOWN) == expected
    assert within_share(holed, other, 0.3, UNKNOWN) == within_share(*rest, 0.3, UNKNOWN)


@pytest.mark.parametrize("share", [0.0, 1.0, 20.0])
def test_bad_share(share: float) -> None:
    """A percentage, or all of it."""
    with pytest.raises(ValueError, match=r"write 20 % as 0\.2"):
        within_share(*pair(8), share, UNKNOWN)


def test_bad_bounds_levels_and_shapes() -> None:
    """Each argument out of range."""
    d, gain = pair(8)
    for bound in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="finite bound > 0"):
            within_bound(d, bound, UNKNOWN)
    with pytest.raises(ValueError, match=r"5 % as 0\.05"):
        within_bound(d, 1.0, UNKNOWN, alpha=5)
    with pytest.raises(ValueError, match=r"got \(4, 79\) beside \(4, 80\)"):
        share_of_gain(d, gain[:, 1:], UNKNOWN)
