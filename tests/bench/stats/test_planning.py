"""Variance components and power; agreement with simulation is in test_stats_simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.stats import VarianceComponents, power, power_seeds, variance_components

TYPICAL = VarianceComponents(seed=0.0032, prompt=0.09, residual=0.36)


def test_components_by_hand() -> None:
    """[[1, 2], [3, 6]]: MSs 9, MSp 4, MSe 1 -> (9-1)/2, (4-1)/2, 1."""
    assert variance_components([[1, 2], [3, 6]]) == VarianceComponents(4.0, 1.5, 1.0)


def test_negative_components_are_zero() -> None:
    """[[1, 2], [6, 5]]: MSp = 0 < MSe = 1; and the transpose."""
    assert variance_components([[1, 2], [6, 5]]) == VarianceComponents(7.5, 0.0, 1.0)
    assert variance_components([[1, 6], [2, 5]]) == VarianceComponents(0.0, 7.5, 1.0)


def test_components_need_two_runs() -> None:
    """A wholly missing run does not count."""
    with pytest.raises(ValueError, match="train another seed"):
        variance_components([[1.0, 2.0], [np.nan, np.nan]])


def test_power_of_seed_noise_alone_is_the_t_tests() -> None:
    """Seed variance only: one-sample t over S = 6 runs, simulated with scipy's own test.

    20 000 replicates: 4 standard errors are at most 0.014.
    """
    got = power(VarianceComponents(1.0, 0.0, 0.0), 1.2, 6, 50)
    sample = np.random.default_rng(0).normal(1.2, 1, (20_000, 6))
    rejected = np.mean(np.asarray(stats.ttest_1samp(sample, 0, axis=1).pvalue) < 0.05)
    assert got == pytest.approx(rejected, abs=0.014)


def test_power_limits() -> None:
    """At no effect it is alpha; it is even in the effect, 1 for a huge one or without noise."""
    assert power(TYPICAL, 0.0, 5, 500) == pytest.approx(0.05)
    assert power(TYPICAL, 0.0, 5, 500, alpha=0.01) == pytest.approx(0.01)
    assert power(TYPICAL, -0.1, 5, 500) == power(TYPICAL, 0.1, 5, 500)
    assert power(TYPICAL, 100.0, 5, 500) == pytest.approx(1)
    still = VarianceComponents(0.0, 0.0, 0.0)
    assert (power(still, 0.1, 3, 10), power(still, 0.0, 3, 10)) == (1, 0)


def test_power_rises_with_seeds_and_prompts() -> None:
    """Both are bought to gain power; beyond the seed noise prompts gain little."""
    by_seeds = [power(TYPICAL, 0.1, s, 500) for s in range(2, 12)]
    by_prompts = [power(TYPICAL, 0.1, 5, p) for p in (50, 100, 300, 500, 5000)]
    assert (np.diff(by_seeds) > 0).all()
    assert (np.diff(by_prompts) > 0).all()
    assert by_seeds[-1] > by_prompts[-1]


def test_power_seeds_finds_the_first_number() -> None:
    """Six seeds for 0.1 at 80 % over 500 prompts: five fall short."""
    plan = power_seeds(TYPICAL, 0.1, 500)
    assert (plan.n_seeds, plan.n_prompts) == (6, 500)
    assert [s for s, _ in plan.curve] == [2, 3, 4, 5, 6]
    assert plan.power == plan.curve[-1][1] == power(TYPICAL, 0.1, 6, 500)
    assert power(TYPICAL, 0.1, 5, 500) < 0.8 <= plan.power


def test_power_seeds_admits_defeat() -> None:
    """The prompts' own variance, sigma_b^2/P, is not reduced by seeds."""
    plan = power_seeds(VarianceComponents(0.0, 1.0, 0.01), 0.1, 20, max_seeds=9)
    assert plan.n_seeds is None
    assert plan.power == plan.curve[-1][1] < 0.8
    assert len(plan.curve) == 8


@pytest.mark.parametrize(
    ("components", "delta0", "seeds", "prompts", "alpha", "message"),
    [
        (TYPICAL, 0.1, 1, 500, 0.05, "at least 2 seeds"),
        (TYPICAL, 0.1, 3, 1, 0.05, "2 prompts"),
        (TYPICAL, float("nan"), 3, 500, 0.05, "finite delta0"),
        (TYPICAL, 0.1, 3, 500, 5, "alpha in"),
        (VarianceComponents(-0.1, 0.0, 1.0), 0.1, 3, 500, 0.05, "variances >= 0"),
    ],
)
def test_power_refuses(
    components: VarianceComponents,
    delta0: float,
    seeds: int,
    prompts: int,
    alpha: float,
    message: str,
) -> None:
    """Each argument out of range."""
    with pytest.raises(ValueError, match=message):
        power(components, delta0, seeds, prompts, alpha)


@pytest.mark.parametrize(("target", "max_seeds"), [(80, 50), (0.8, 1)])
def test_power_seeds_refuses(target: float, max_seeds: int) -> None:
    """A percentage, or no room to search."""
    with pytest.raises(ValueError, match=r"write 80 % as 0\.8"):
        power_seeds(TYPICAL, 0.1, 500, target, max_seeds=max_seeds)
