"""The crossed interval against hand-derived values, scipy and its own symmetries."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import stats

from bench.stats import (
    Interval,
    crossed_interval,
    effect_size_dz,
    mean_squares,
    missing_share,
    paired_differences,
    standard_error,
)

Array = NDArray[np.float64]
matrices = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=st.integers(-1000, 1000).map(lambda i: i / 100),
)


def close(a: Interval, b: Interval, **changed: float) -> None:
    """Assert that two intervals agree but for rounding, apart from the named fields."""
    expected = dataclasses.asdict(b) | changed
    assert dataclasses.asdict(a) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_two_by_two_by_hand() -> None:
    """Cells [[1, 2], [3, 6]], S = P = 2.

    Row means 1.5, 4.5: variance 4.5, MSs = 2 x 4.5 = 9. Column means 2, 4: MSp = 2 x 2 = 4. Mean 3.
    Residuals +-0.5: MSe = 4 x 0.25 / 1 = 1. V = max(9 + 4 - 1, 9, 4) = 12, se = sqrt(12/4).
    df = 144 / (81/1 + 16/1 + 1/1) = 144/98. Shares (9-1, 4-1, 1)/12. t = 3/sqrt(3) = sqrt(3).
    """
    got = crossed_interval([[1, 2], [3, 6]])
    df = 144 / 98
    half = stats.t.ppf(0.975, df) * 3**0.5
    assert (got.mean, got.se, got.df) == pytest.approx((3, 3**0.5, df))
    assert (got.low, got.high) == pytest.approx((3 - half, 3 + half))
    assert got.p_value == pytest.approx(2 * stats.t.cdf(-(3**0.5), df))
    shares = (got.share_seed, got.share_prompt, got.share_residual)
    assert shares == pytest.approx((8 / 12, 3 / 12, 1 / 12))
    assert (got.n_seeds, got.n_prompts, got.n_missing, got.conditional) == (2, 2, 0, False)


def test_negative_prompt_component_by_hand() -> None:
    """Cells [[1, 2], [6, 5]]: a negative prompt estimate is set to 0.

    Row means 1.5, 5.5: MSs = 2 x 8 = 16. Column means equal: MSp = 0. Residuals +-0.5: MSe = 1.
    V = max(15, 16, 0) = 16, se = 2, df = 256 / (256 + 0 + 1). Shares (15, 0, 1)/16.
    """
    got = crossed_interval([[1, 2], [6, 5]])
    assert (got.mean, got.se, got.df) == pytest.approx((3.5, 2, 256 / 257))
    assert (got.share_seed, got.share_prompt) == pytest.approx((15 / 16, 0))


def test_negative_seed_component_by_hand() -> None:
    """The transpose of the last case: V = MSp = 16, and df still carries the residual term."""
    got = crossed_interval([[1, 6], [2, 5]])
    assert (got.mean, got.se, got.df) == pytest.approx((3.5, 2, 256 / 257))
    assert (got.share_seed, got.share_prompt) == pytest.approx((0, 15 / 16))


def test_pure_interaction_is_not_certainty() -> None:
    """Cells [[2, 0], [0, 2]]: rows and columns all have mean 1, so MSs = MSp = 0, MSe = 4.

    Both components are negative, V = MSe = 4, se = sqrt(4/4) = 1, df = (S-1)(P-1) = 1.
    """
    got = crossed_interval([[2, 0], [0, 2]])
    assert (got.mean, got.se, got.df) == pytest.approx((1, 1, 1))
    assert (got.share_seed, got.share_prompt, got.share_residual) == (0, 0, 1)


def test_df_does_not_jump_where_the_seed_component_reaches_zero() -> None:
    """Either side of MSs = MSe the df agree, although the branch of the maximum changes."""
    seed = np.array([1 - 1e-9, 1 + 1e-9])
    _, df = standard_error(seed, np.full(2, 3.0), np.ones(2), 3, 200)
    assert df[0] == pytest.approx(df[1], rel=1e-6)
    assert df[0] == pytest.approx(9 / (1 / 2 + 9 / 199 + 1 / 398))


def test_seed_effects_only_is_the_t_test_over_seeds() -> None:
    """Without prompt or residual variance the rows are the sample."""
    rows = np.array([0.3, -0.1, 0.4, 0.25])
    got = crossed_interval(np.repeat(rows[:, None], 7, axis=1))
    expected = stats.ttest_1samp(rows, 0)
    low, high = expected.confidence_interval(0.95)
    assert (got.df, got.p_value) == pytest.approx((3, expected.pvalue))
    assert (got.low, got.high) == pytest.approx((low, high))


def test_prompt_effects_only_is_the_t_test_over_prompts() -> None:
    """Without seed or residual variance the columns are the sample."""
    columns = np.array([0.3, -0.1, 0.4, 0.25, 1.0])
    got = crossed_interval(np.repeat(columns[None], 3, axis=0), confidence=0.9)
    expected = stats.ttest_1samp(columns, 0)
    low, high = expected.confidence_interval(0.9)
    assert (got.df, got.p_value) == pytest.approx((4, expected.pvalue))
    assert (got.low, got.high) == pytest.approx((low, high))


def test_one_seed_is_the_t_test_over_prompts_and_marked() -> None:
    """S = 1, with a missing prompt: Student's t on the rest, conditional on the run."""
    row = np.array([0.3, np.nan, -0.1, 0.4, 0.25])
    got = crossed_interval(row[None])
    expected = stats.ttest_1samp(row, 0, nan_policy="omit")
    low, high = expected.confidence_interval(0.95)
    assert got.conditional
    assert (got.df, got.p_value) == pytest.approx((3, expected.pvalue))
    assert (got.low, got.high) == pytest.approx((low, high))
    assert (got.share_seed, got.share_prompt, got.share_residual) == (0, 1, 0)


@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize(("value", "p_value"), [(0.0, 1.0), (0.1, 0.0), (-0.3, 0.0)])
def test_equal_cells(n_seeds: int, value: float, p_value: float) -> None:
    """No variance: a point, p = 1 at 0 and else 0, df finite, nothing NaN."""
    got = crossed_interval(np.full((n_seeds, 11), value))
    assert (got.mean, got.low, got.high, got.se, got.p_value) == (value,) * 3 + (0.0, p_value)
    assert got.df == (2 if n_seeds == 3 else 10)
    assert np.isfinite(list(dataclasses.astuple(got))).all()


def test_missing_cells_are_counted_and_prompts_dropped() -> None:
    """Seed 1 is a missing run (4 cells); prompt 2 misses one further cell: 5 of 16 missing."""
    d = np.arange(16.0).reshape(4, 4) ** 1.5
    d[1] = np.nan
    d[3, 2] = np.inf
    got = crossed_interval(d)
    close(
        got,
        crossed_interval(d[np.ix_([0, 2, 3], [0, 1, 3])]),
        n_missing=5,
        missing_share=5 / 16,
        dropped_seeds=1,
        dropped_prompts=1,
    )


@pytest.mark.parametrize(
    ("d", "message"),
    [
        ([1.0, 2.0], r"expected paired differences of shape \(seeds, prompts\), got shape \(2,\)"),
        ([[1.0], [2.0]], "2 prompts with complete cells, got 2 and 1"),
        ([[np.nan, np.nan]], "got 0 and 0"),
        ([[1.0, np.nan], [np.nan, 1.0]], "got 2 and 0"),
    ],
)
def test_bad_shapes_are_explained(d: list[float], message: str) -> None:
    """The message says what was expected and what came."""
    with pytest.raises(ValueError, match=message):
        crossed_interval(d)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_bad_confidence(confidence: float) -> None:
    """Percent instead of a fraction is the usual slip."""
    with pytest.raises(ValueError, match=r"write 95 % as 0\.95"):
        crossed_interval([[1, 2], [3, 6]], confidence)


@settings(max_examples=60, deadline=None)
@given(matrices, st.integers(-500, 500))
def test_shift_moves_the_interval_only(d: Array, shift: int) -> None:
    """A constant added to every cell moves mean, low and high, and nothing else but p."""
    before, after = crossed_interval(d), crossed_interval(d + shift)
    moved = {name: getattr(before, name) + shift for name in ("mean", "low", "high")}
    close(after, before, **moved, p_value=after.p_value)


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_swapping_the_arms_mirrors_the_interval(d: Array) -> None:
    """The sign of d is a naming of the arms."""
    before, after = crossed_interval(d), crossed_interval(-d)
    close(after, before, mean=-before.mean, low=-before.high, high=-before.low)


@settings(max_examples=60, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_order_of_seeds_and_prompts_is_irrelevant(d: Array, random: object) -> None:
    """Permuting rows and columns changes nothing."""
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    shuffled = d[np.ix_(rng.permutation(d.shape[0]), rng.permutation(d.shape[1]))]
    before, after = crossed_interval(d), crossed_interval(shuffled)
    close(after, before, p_value=after.p_value)
    if before.se > 0 and abs(before.mean) > 1e-9:
        assert after.p_value == pytest.approx(before.p_value, rel=1e-5, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(matrices, st.data())
def test_missing_prompts_are_as_if_never_there(d: Array, data: st.DataObject) -> None:
    """NaN cells in some prompts give the interval of the other prompts, and are counted."""
    full = np.concatenate([d, d[:, :2]], axis=1)
    n_seeds, n_prompts = full.shape
    hit = data.draw(st.sets(st.integers(0, n_prompts - 1), max_size=n_prompts - 2))
    holed = full.copy()
    for prompt in hit:
        holed[data.draw(st.integers(0, n_seeds - 1)), prompt] = np.nan
    rest = crossed_interval(np.delete(full, sorted(hit), axis=1))
    share = len(hit) / full.size
    close(
        crossed_interval(holed),
        rest,
        n_missing=len(hit),
        missing_share=share,
        dropped_prompts=len(hit),
    )


def test_mean_squares_over_leading_axes_is_the_loop() -> None:
    """Vectorised and single calls agree."""
    d = np.random.default_rng(3).normal(size=(2, 3, 4, 5))
    squares = mean_squares(d)
    one = mean_squares(d[1, 2])
    assert squares.seed.shape == (2, 3)
    assert (squares.mean[1, 2], squares.seed[1, 2]) == pytest.approx((one.mean, one.seed))
    assert squares.prompt[1, 2] == pytest.approx(one.prompt)
    assert squares.residual[1, 2] == pytest.approx(one.residual)


def test_dz_by_hand() -> None:
    """[[1, 2], [3, 6]]: mean 3, squares 4 + 1 + 0 + 9 = 14, sd = sqrt(14/3)."""
    assert effect_size_dz([[1, 2], [3, 6]]) == pytest.approx(3 / (14 / 3) ** 0.5)
    assert effect_size_dz(np.zeros((2, 3))) == 0
    assert effect_size_dz(np.full((2, 3), -0.1)) == -np.inf


def test_paired_differences_average_the_pairs_that_are_there() -> None:
    """K = 2: (3-1, 5-1) -> 3; (NaN, 2-1) -> 1; both missing -> NaN, inf counting as missing."""
    on = [[[3.0, 5.0], [np.nan, 2.0], [np.inf, 1.0]]]
    off = [[[1.0, 1.0], [1.0, 1.0], [np.inf, np.nan]]]
    np.testing.assert_array_equal(paired_differences(on, off), [[3, 1, np.nan]])
    assert missing_share(on) == pytest.approx(2 / 6)


def test_paired_differences_refuse_unpaired_input() -> None:
    """Broadcasting would silently pair the wrong cells."""
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(1, 3\); align both arms"):
        paired_differences(np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least one value"):
        missing_share([])
