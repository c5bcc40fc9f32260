"""Bootstrap, sign flips and rank tests against enumeration and scipy."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bench.stats import (
    Companion,
    crossed_interval,
    mean_squares,
    pigeonhole_bootstrap,
    pigeonhole_bootstraps,
    resample,
    sign_flip_p,
    sign_test,
    wilcoxon_prompts,
)

D = np.random.default_rng(5).normal(0.1, 1, (4, 30))


def test_bootstrap_agrees_with_explicit_resampling() -> None:
    """Weights are an implementation of drawing row and column indices; same quantiles.

    The tolerance is 5 standard errors of a quantile from 10 000 draws of a normal,
    sqrt(.025 x .975 / 10 000) / phi(1.96) = 0.027 standard deviations, for both sides.
    """
    rng = np.random.default_rng(0)
    means = [
        D[np.ix_(rng.integers(0, 4, 4), rng.integers(0, 30, 30))].mean() for _ in range(10_000)
    ]
    got = pigeonhole_bootstrap(D, seed=1)
    tolerance = 5 * 0.027 * 2**0.5 * np.std(means)
    assert (got.low, got.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=tolerance)
    assert got.mean == pytest.approx(D.mean())
    assert (got.draws, got.seed) == (10_000, 1)


def test_bootstrap_variance_is_owens() -> None:
    """Var* = (S-1)/S^2 MSs/P + (P-1)/P^2 MSp/S + (S-1)(P-1)/(SP)^2 MSe, exactly.

    With u = w/S - 1/S and q = v/P - 1/P the draw is m + sum u (r - m) + sum q (c - m) + u'eq; the
    three terms are uncorrelated, cov(w) = I - 1/S, and e has zero row and column sums. The bounds
    of a near-normal 68.27 % interval are one standard deviation off; 3 % tolerance.
    """
    d = np.random.default_rng(8).normal(0, 1, (12, 40))
    squares = mean_squares(d)
    variance = (
        11 / 144 * squares.seed / 40
        + 39 / 1600 * squares.prompt / 12
        + 11 * 39 / 480**2 * squares.residual
    )
    got = pigeonhole_bootstrap(d, seed=2, draws=40_000, confidence=0.6827)
    assert (got.high - got.low) / 2 == pytest.approx(variance**0.5, rel=0.03)


def test_bootstrap_of_one_run_agrees_with_scipy() -> None:
    """S = 1 is the ordinary percentile bootstrap over prompts, and says so."""
    got = pigeonhole_bootstrap(D[:1], seed=1)
    expected = stats.bootstrap(
        (D[0],), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    tolerance = 0.2 * D[0].std() / 30**0.5
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=tolerance)
    assert "conditional on one training run" in got.label


def test_resampling_is_a_function_of_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither global random state nor the chunk size matters; another seed does."""
    first, p_first = pigeonhole_bootstrap(D, seed=1, draws=500), sign_flip_p(D, seed=1, draws=500)
    monkeypatch.setattr(resample, "_CHUNK_VALUES", 30 * 7)
    again = pigeonhole_bootstrap(D, seed=1, draws=500)
    assert (again.low, again.high) == pytest.approx((first.low, first.high))
    assert sign_flip_p(D, seed=1, draws=500) == p_first
    assert pigeonhole_bootstrap(D, seed=2, draws=500).low != first.low


@pytest.mark.parametrize("n", [7, 900, 1_100])
def test_counts_are_of_samples_with_replacement(n: int) -> None:
    """Multinomial: they sum to n, with variance 1 - 1/n and covariance -1/n, by either way.

    The tolerances are 5 standard errors: of a mean of 200 n squares with variance below 3, and of
    200 sums of n/2 counts, whose variance is n/4.
    """
    counts = resample.counts(np.random.default_rng(3), n, 200)
    assert counts.shape == (200, n)
    assert (counts.sum(axis=1) == n).all()
    spread = 5 * (3 / (200 * n)) ** 0.5
    assert np.square(counts - 1).mean() == pytest.approx(1 - 1 / n, abs=spread)
    half = counts[:, : n // 2].sum(axis=1)
    expected = n // 2 * (1 - (n // 2) / n)
    assert np.square(half - n // 2).mean() == pytest.approx(expected, rel=5 * (2 / 200) ** 0.5)


def test_many_prompts_are_resampled_alike_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    d = np.random.default_rng(8).normal(0, 1, (3, 1_500))
    first = pigeonhole_bootstrap(d, seed=1, draws=300)
    monkeypatch.setattr(resample, "_CHUNK_VALUES", 1_500 * 7)
    again = pigeonhole_bootstrap(d, seed=1, draws=300)
    assert (again.low, again.high) == pytest.approx((first.low, first.high))


def test_bootstraps_of_many_are_those_of_each() -> None:
    """To the bit, whatever stands beside it: the weights depend on seed and shape alone."""
    holed = D.copy()
    holed[0, 3] = np.nan
    matrices = [D, holed, D[:3], D + 1, holed * 2]
    got = pigeonhole_bootstraps(matrices, seed=3, draws=400)
    assert got == [pigeonhole_bootstrap(d, seed=3, draws=400) for d in matrices]
    assert pigeonhole_bootstraps([], seed=3) == []


def test_bootstrap_figures_are_pinned() -> None:
    """As drawn when results were first committed: 2 x 3 cells, 5 draws, by explicit weights."""
    d = np.arange(6.0).reshape(2, 3) ** 2
    first, second = (np.random.default_rng(s) for s in np.random.SeedSequence(7).spawn(2))
    seeds = first.multinomial(2, [1 / 2] * 2, size=5)
    prompts = second.multinomial(3, [1 / 3] * 3, size=5)
    means = [w @ d @ v / 6 for w, v in zip(seeds, prompts, strict=True)]
    got = pigeonhole_bootstrap(d, seed=7, draws=5, confidence=0.5)
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(means, [0.25, 0.75])))


def test_sign_flip_of_seed_effects_by_enumeration() -> None:
    """Equal prompts, rows 1, 2, 3: only +++ and --- of 8 patterns reach |mean| = 2, p = 1/4.

    20 000 draws: 4 standard errors are 0.012.
    """
    got = sign_flip_p(np.repeat([[1.0], [2.0], [3.0]], 5, axis=1), seed=3, draws=20_000)
    assert got.p_value == pytest.approx(0.25, abs=0.012)
    assert "floor about 2^-3" in got.label


def test_sign_flip_of_seeds_and_prompts_by_enumeration() -> None:
    """All 2^3 x 2^4 patterns of the definition in the docstring, written out as a loop."""
    d = np.random.default_rng(11).normal(0.5, 1, (3, 4))
    rows, columns, m = d.mean(axis=1), d.mean(axis=0), d.mean()
    far = [
        abs(np.dot(u, rows) / 3 + np.dot(v, columns - m) / 4) >= abs(m) - 1e-12
        for u in itertools.product([-1, 1], repeat=3)
        for v in itertools.product([-1, 1], repeat=4)
    ]
    assert 0.1 < np.mean(far) < 0.9
    got = sign_flip_p(d, seed=3, draws=20_000)
    assert got.p_value == pytest.approx(np.mean(far), abs=4 * 0.5 / 20_000**0.5)


def test_sign_flip_of_one_run_agrees_with_scipy() -> None:
    """S = 1: the exact one-sample sign-flip test of scipy on 8 prompts."""
    row = np.array([0.5, -0.2, 0.9, 0.4, -0.1, 0.3, 0.8, -0.6])
    exact = stats.permutation_test(
        (row,), np.mean, permutation_type="samples", n_resamples=2**8
    ).pvalue
    got = sign_flip_p(row[None], seed=0, draws=20_000)
    assert got.p_value == pytest.approx(exact, abs=4 * 0.5 / 20_000**0.5)
    assert "conditional on one training run" in got.label


def test_sign_flip_p_is_never_zero() -> None:
    """40 equal signs are never met by chance: c = 0, p = 1/(9 + 1)."""
    assert sign_flip_p(np.ones((1, 40)), seed=0, draws=9).p_value == 0.1


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_identical_arms_give_p_one(n_seeds: int) -> None:
    """All differences 0: every test says 1, not NaN."""
    zero = np.zeros((n_seeds, 6))
    assert sign_flip_p(zero, seed=0, draws=50).p_value == 1
    assert wilcoxon_prompts(zero).p_value == 1
    assert sign_test(zero).p_value == 1
    interval = pigeonhole_bootstrap(zero, seed=0, draws=50)
    assert (interval.low, interval.high) == (0, 0)


def test_wilcoxon_is_scipys_on_prompt_means() -> None:
    """After the incomplete prompt 3 is dropped."""
    holed = D.copy()
    holed[2, 3] = np.nan
    expected = stats.wilcoxon(np.delete(D, 3, axis=1).mean(axis=0)).pvalue
    got = wilcoxon_prompts(holed)
    assert got.p_value == pytest.approx(expected)
    assert got.label == (
        "Wilcoxon signed-rank over 29 prompts, conditional on these 4 training runs"
    )


def test_sign_test_by_hand() -> None:
    """8 positive, 1 negative, 1 zero prompt mean: 2 (1 + 9) / 2^9."""
    means = np.array([1.0] * 8 + [-5.0, 0.0])
    got = sign_test(np.stack([means + 0.25, means - 0.25]))
    assert got.p_value == pytest.approx(20 / 512)
    assert "conditional on these 2 training runs" in got.label


@pytest.mark.parametrize("test", [wilcoxon_prompts, sign_test])
def test_rank_tests_do_not_know_the_sign(test: Callable[..., Companion]) -> None:
    """Two-sided: swapping the arms or the seeds changes nothing; a shift does."""
    assert test(-D).p_value == pytest.approx(test(D).p_value)
    assert test(D[::-1]).p_value == pytest.approx(test(D).p_value)
    assert test(D + 1).p_value < 0.01 < test(D).p_value


def test_bootstrap_moves_with_a_shift() -> None:
    """Same draws, so the percentiles move by exactly the shift."""
    a, b = (pigeonhole_bootstrap(x, seed=4, draws=300) for x in (D, D + 2))
    assert (b.low, b.high) == pytest.approx((a.low + 2, a.high + 2))
    assert a.low < crossed_interval(D).mean < a.high


def test_bad_settings() -> None:
    """No draws or a percentage for a level."""
    with pytest.raises(ValueError, match="draws >= 1"):
        sign_flip_p(D, seed=0, draws=0)
    with pytest.raises(ValueError, match="draws >= 1"):
        pigeonhole_bootstrap(D, seed=0, draws=0)
    with pytest.raises(ValueError, match=r"write 95 % as 0\.95"):
        pigeonhole_bootstrap(D, seed=0, confidence=95)
