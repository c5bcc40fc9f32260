"""Variance components and the power of the crossed test: how many training seeds are enough."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.stats.anova import mean_squares, standard_error
from bench.stats.cells import complete_cells


@dataclass(frozen=True)
class VarianceComponents:
    """Method-of-moments variances of one cell, squared score units, each >= 0.

    Attributes:
        seed: Variance between training seeds, sigma_a^2.
        prompt: Variance between prompts, sigma_b^2.
        residual: Variance of one cell beyond both, sigma_e^2.
    """

    seed: float
    prompt: float
    residual: float


@dataclass(frozen=True)
class PowerPlan:
    """How many training seeds detect a given effect.

    Attributes:
        n_seeds: Smallest number reaching the target, or None if ``max_seeds`` does not.
        n_prompts: Prompts assumed.
        power: Power at ``n_seeds``, or at ``max_seeds`` if that is None; in [0, 1].
        curve: ``(seeds, power)`` from 2 seeds to the last one tried.
    """

    n_seeds: int | None
    n_prompts: int
    power: float
    curve: tuple[tuple[int, float], ...]


def variance_components(d: ArrayLike) -> VarianceComponents:
    """Method-of-moments variance components, negative estimates set to 0.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.

    Returns:
        The three components, squared score units.

    Raises:
        ValueError: If fewer than 2 seeds or 2 complete prompts remain.
    """
    values = complete_cells(d).values
    n_seeds, n_prompts = values.shape
    if n_seeds < 2:
        raise ValueError(
            "expected at least 2 training seeds, got 1; seed variance cannot be estimated from "
            "one run, so train another seed"
        )
    squares = mean_squares(values)
    residual = float(squares.residual)
    return VarianceComponents(
        seed=max(float(squares.seed) - residual, 0.0) / n_prompts,
        prompt=max(float(squares.prompt) - residual, 0.0) / n_seeds,
        residual=residual,
    )


def power(
    components: VarianceComponents,
    delta0: float,
    n_seeds: int,
    n_prompts: int,
    alpha: float = 0.05,
) -> float:
    """Power of the two-sided crossed t-test at a true mean difference ``delta0``.

    The mean squares are put at their expectations; they give the standard error and Satterthwaite
    degrees of freedom of a noncentral t. Real data scatter around them, so the power of the actual
    test is some hundredths higher at 3 seeds, and understated for good at 2.

    Args:
        components: Variances of one cell, from :func:`variance_components` or assumed.
        delta0: True mean difference, score units; its sign is irrelevant.
        n_seeds: Training seeds, >= 2.
        n_prompts: Prompts, >= 2.
        alpha: Two-sided level, in (0, 1).

    Returns:
        Probability of p < alpha, in [0, 1]; without any variance 1, or 0 for ``delta0 == 0``.

    Raises:
        ValueError: If an argument is out of range.
    """
    if n_seeds < 2 or n_prompts < 2:
        raise ValueError(
            f"expected at least 2 seeds and 2 prompts, got {n_seeds} and {n_prompts}; one run has "
            "no test over training runs, so plan for more"
        )
    if not (np.isfinite(delta0) and 0 < alpha < 1):
        raise ValueError(
            f"expected a finite delta0 and alpha in (0, 1), got {delta0} and {alpha}; give delta0 "
            "in score units and 5 % as 0.05"
        )
    seed, prompt, residual = components.seed, components.prompt, components.residual
    if min(seed, prompt, residual) < 0:
        raise ValueError(f"expected variances >= 0, got {components}; clip negative estimates at 0")
    se, df = standard_error(
        np.asarray(residual + n_prompts * seed),
        np.asarray(residual + n_seeds * prompt),
        np.asarray(residual),
        n_seeds,
        n_prompts,
    )
    if se == 0:
        return float(delta0 != 0)
    critical = stats.t.isf(alpha / 2, df)
    shift = abs(delta0) / se
    return float(stats.nct.sf(critical, df, shift) + stats.nct.sf(critical, df, -shift))


def power_seeds(
    components: VarianceComponents,
    delta0: float,
    n_prompts: int,
    target: float = 0.8,
    alpha: float = 0.05,
    max_seeds: int = 50,
) -> PowerPlan:
    """Find the number of training seeds that detects ``delta0`` with the target power.

    More seeds cannot push the variance below sigma_b^2 / P, so the target may be out of reach
    (``n_seeds`` None); then more prompts are needed.

    Args:
        components: Variances of one cell.
        delta0: Mean difference to detect, score units.
        n_prompts: Prompts, >= 2.
        target: Power wanted, in (0, 1).
        alpha: Two-sided level, in (0, 1).
        max_seeds: Largest number tried, >= 2.

    Returns:
        The plan with the power at every number tried.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 < target < 1 or max_seeds < 2:
        raise ValueError(
            f"expected target in (0, 1) and max_seeds >= 2, got {target} and {max_seeds}; "
            "write 80 % as 0.8"
        )
    curve: list[tuple[int, float]] = []
    for n_seeds in range(2, max_seeds + 1):
        reached = power(components, delta0, n_seeds, n_prompts, alpha)
        curve.append((n_seeds, reached))
        if reached >= target:
            return PowerPlan(n_seeds, n_prompts, reached, tuple(curve))
    return PowerPlan(None, n_prompts, curve[-1][1], tuple(curve))
