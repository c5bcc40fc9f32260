"""Coverage, false positives and power of the analyses in a simulated benchmark.

Score = prompt effect (sd 1) + image noise shared in part by the arms through the same initial
noise (sd 0.6, correlation 0.5) + method x prompt (sd 0.3) + training-run effect (sd 0.04 per run
and arm) + delta for the arm *on*. 200 prompts, nominal level 95 %.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bench.stats import (
    VarianceComponents,
    mean_squares,
    pigeonhole_bootstraps,
    sign_flip_p,
    standard_error,
    two_sided_p,
    variance_components,
)

Array = NDArray[np.float64]
REPLICATES, PROMPTS, DELTA = 4000, 200, 0.1
TRUE = VarianceComponents(seed=2 * 0.04**2, prompt=0.3**2, residual=2 * 0.6**2 * (1 - 0.5))


def simulate(replicates: int, n_seeds: int, delta: float, seed: int) -> Array:
    """Paired differences, shape (replicates, n_seeds, PROMPTS), from simulated scores."""
    rng = np.random.default_rng(seed)
    cells = (replicates, n_seeds, PROMPTS)
    prompt = rng.normal(0, 1.0, (replicates, 1, PROMPTS))
    method = rng.normal(0, 0.3, (replicates, 1, PROMPTS))
    shared = 0.6 * 0.5**0.5 * rng.standard_normal(cells)
    arms = [
        prompt
        + shared
        + 0.6 * 0.5**0.5 * rng.standard_normal(cells)
        + rng.normal(0, 0.04, (replicates, n_seeds, 1))
        for _ in range(2)
    ]
    return np.asarray(arms[0] + method + delta - arms[1])


@cache
def crossed(n_seeds: int, delta: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rejections at 5 % and coverage of the true delta, one bool per replicate."""
    d = simulate(REPLICATES, n_seeds, delta, seed=n_seeds if delta == 0 else 100 + n_seeds)
    squares = mean_squares(d)
    se, df = standard_error(squares.seed, squares.prompt, squares.residual, n_seeds, PROMPTS)
    rejected = two_sided_p(squares.mean, se, df) < 0.05
    covered = np.abs(squares.mean - delta) <= stats.t.ppf(0.975, df) * se
    return np.asarray(rejected), np.asarray(covered)


def rejects(d: Array, axis: int | tuple[int, ...]) -> float:
    """False-positive rate of a one-sample t-test over the given axes."""
    flat = d.reshape(len(d), -1) if axis == (1, 2) else d
    return float(np.mean(np.asarray(stats.ttest_1samp(flat, 0, axis=1).pvalue) < 0.05))


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_crossed_interval_covers_the_truth(n_seeds: int) -> None:
    """Coverage within 4 binomial standard errors of 95 % (+-1.4 % at 4000 replicates)."""
    _, covered = crossed(n_seeds, DELTA)
    band = 4 * (0.95 * 0.05 / REPLICATES) ** 0.5
    assert abs(covered.mean() - 0.95) < band


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_crossed_test_keeps_its_level_where_naive_tests_do_not(n_seeds: int) -> None:
    """Below 7 %; counting every image, or one run over prompts, exceeds 20 % on the same data."""
    rejected, _ = crossed(n_seeds, 0.0)
    assert 0.03 < rejected.mean() < 0.07
    d = simulate(REPLICATES, n_seeds, 0.0, seed=n_seeds)
    assert rejects(d, (1, 2)) > 0.20
    assert rejects(d.mean(axis=1), 1) > 0.12


def test_one_seed_over_prompts_is_not_a_test_of_the_component() -> None:
    """A single run, paired over prompts, ignores the run effect: sd 0.057 beside se 0.047."""
    assert rejects(simulate(REPLICATES, 1, 0.0, seed=9)[:, 0], 1) > 0.18


def test_variance_components_recover_the_truth() -> None:
    """Averaged over 200 experiments with 8 seeds; the clip at 0 is rare there."""
    got = np.array(
        [
            [c.seed, c.prompt, c.residual]
            for c in map(variance_components, simulate(200, 8, 0.0, seed=4))
        ]
    )
    error = 4 * got.std(axis=0, ddof=1) / len(got) ** 0.5
    truth = np.array([TRUE.seed, TRUE.prompt, TRUE.residual])
    assert (np.abs(got.mean(axis=0) - truth) < error).all()
    assert (error < 0.4 * truth).all()


def test_companions_in_the_same_design() -> None:
    """Three runs: the bootstrap is near its level, the sign flips cannot reject at all."""
    experiments = simulate(400, 3, 0.0, seed=6)
    intervals = pigeonhole_bootstraps(list(experiments), seed=1, draws=300)
    excluded = np.mean([i.low > 0 or i.high < 0 for i in intervals])
    assert 0.02 < excluded < 0.15
    assert min(sign_flip_p(d, seed=1, draws=300).p_value for d in experiments) > 0.05
    five = simulate(400, 5, 0.0, seed=7)
    assert np.mean([sign_flip_p(d, seed=1, draws=300).p_value < 0.05 for d in five]) <= 0.05
