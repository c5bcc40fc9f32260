"""Win matrices and win rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from bench.stats import crossed_interval, wilson, win_matrix, win_rate

Array = NDArray[np.float64]


def test_win_matrix_by_hand() -> None:
    """Differences 1, 0, -1, 0.5 (inside eps = 0.5), missing on either side."""
    on = [[2.0, 1.0, 0.0], [1.5, np.nan, 1.0]]
    off = [[1.0, 1.0, 1.0], [1.0, 1.0, np.inf]]
    np.testing.assert_array_equal(
        win_matrix(on, off, eps=0.5), [[1, 0.5, 0], [0.5, np.nan, np.nan]]
    )
    np.testing.assert_array_equal(win_matrix(on, off), [[1, 0.5, 0], [1, np.nan, np.nan]])


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_bad_eps(eps: float) -> None:
    """A negative tie band would turn ties into losses."""
    with pytest.raises(ValueError, match="finite eps >= 0"):
        win_matrix([[1.0]], [[1.0]], eps)


def test_win_rate_over_seeds_by_hand() -> None:
    """Outcomes [[1, 1], [1, 0], [1, 0.5]]: 4 wins, 1 tie, 1 loss, rate 4.5/6 = 0.75.

    Row means 1, .5, .75: variance 1/16, MSs = 1/8. Column means 1, .5: MSp = 3/8. Residuals
    -+1/4, +-1/4, 0: SSe = 1/4 on 2 df, MSe = 1/8. V = 1/8 + 3/8 - 1/8 = 3/8, se^2 = 3/48 = 1/16.
    df = (9/64) / (1/128 + 9/64 + 1/128) = 0.9, so the bounds pass 0 and 1 and are clipped.
    """
    got = win_rate([[1.0, 1.0], [1.0, 0.0], [1.0, 0.5]], np.full((3, 2), 0.5))
    assert (got.wins, got.ties, got.losses, got.rate) == (4, 1, 1, 0.75)
    assert got.p_value == pytest.approx(2 * stats.t.sf(0.25 / 0.25, 0.9))
    assert (got.low, got.high, got.method) == (0.0, 1.0, "crossed")


def test_win_rate_interval_is_the_crossed_one() -> None:
    """On a larger matrix, unclipped, the bounds are those of the outcomes."""
    on = np.random.default_rng(0).normal(0.1, 1, (4, 60))
    got = win_rate(on, np.zeros_like(on), confidence=0.9)
    expected = crossed_interval((on > 0) * 1.0, 0.9)
    assert (got.rate, got.low, got.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert got.p_value == pytest.approx(crossed_interval((on > 0) - 0.5).p_value)


def test_images_are_replicates_not_observations() -> None:
    """Repeating every image four times changes the counts and nothing else."""
    on = np.random.default_rng(1).normal(0.1, 1, (3, 40))
    once = win_rate(on, np.zeros_like(on))
    four = win_rate(np.repeat(on[..., None], 4, axis=2), np.zeros((*on.shape, 4)))
    assert (four.rate, four.low, four.high) == pytest.approx((once.rate, once.low, once.high))
    assert (four.wins, four.losses) == (4 * once.wins, 4 * once.losses)


def test_missing_images_leave_as_pairs() -> None:
    """One image of a cell missing keeps the cell; all of them drop the prompt for every seed."""
    on = np.ones((2, 4, 2))
    on[0, 0, 0] = np.nan
    on[1, 3] = np.nan
    on[0, 1, 1] = -1
    got = win_rate(on, np.zeros_like(on))
    assert (got.n_missing, got.n_prompts) == (3, 3)
    assert (got.wins, got.ties, got.losses) == (10, 0, 1)
    assert got.rate == pytest.approx((5 + 0.5) / 6)


def test_one_seed_uses_wilson_over_prompts() -> None:
    """7 wins of 10: scipy's Wilson interval, and the score test z = 0.2 sqrt(10) / 0.5."""
    on = np.array([[1.0] * 7 + [-1.0] * 3])
    got = win_rate(on, np.zeros_like(on))
    expected = stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert got.method == "wilson"
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert got.p_value == pytest.approx(2 * stats.norm.sf(0.4 * 10**0.5))


def test_a_clean_sweep_is_not_certainty() -> None:
    """All pairs won: no variance is seen; Wilson over the 8 prompts instead of [1, 1]."""
    got = win_rate(np.ones((3, 8)), np.zeros((3, 8)))
    z2 = stats.norm.ppf(0.975) ** 2
    assert (got.rate, got.high, got.method) == (1.0, 1.0, "wilson")
    assert got.low == pytest.approx(8 / (8 + z2))
    assert 0 < got.p_value < 0.05


def test_identical_arms_tie_everywhere() -> None:
    """Rate 0.5 with no uncertainty and p = 1."""
    scores = np.random.default_rng(2).normal(size=(3, 9))
    got = win_rate(scores, scores)
    assert (got.rate, got.low, got.high, got.p_value, got.ties) == (0.5, 0.5, 0.5, 1.0, 27)


@pytest.mark.parametrize(("wins", "n"), [(0, 5), (5, 5), (1, 7), (250, 500)])
def test_wilson_agrees_with_scipy(wins: int, n: int) -> None:
    """Including the ends, where the bounds are exactly 0 and 1."""
    expected = stats.binomtest(wins, n).proportion_ci(0.9, method="wilson")
    assert wilson(wins / n, n, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("rate", "n", "confidence"), [(1.1, 5, 0.9), (0.5, 0, 0.9), (0.5, 5, 90)])
def test_wilson_refuses(rate: float, n: int, confidence: float) -> None:
    """Each argument out of range."""
    with pytest.raises(ValueError, match="give the rate as a fraction"):
        wilson(rate, n, confidence)


scores = arrays(np.float64, (3, 5, 2), elements=st.sampled_from([-1.0, 0.0, 1.0, np.nan]))


@settings(max_examples=60, deadline=None)
@given(scores)
def test_swapping_the_arms_swaps_wins_and_losses(on: Array) -> None:
    """Rate becomes 1 - rate, the interval mirrors, the test is the same."""
    on[:, :2] = np.nan_to_num(on[:, :2])  # two complete prompts at least
    off = np.zeros_like(on)
    a, b = win_rate(on, off), win_rate(off, on)
    assert (a.wins, a.ties, a.losses) == (b.losses, b.ties, b.wins)
    assert (a.rate, a.low, a.high) == pytest.approx((1 - b.rate, 1 - b.high, 1 - b.low), abs=1e-9)
    assert a.p_value == pytest.approx(b.p_value, abs=1e-9)
    assert 0 <= a.low <= a.rate <= a.high <= 1
