"""Variance components and power: how many training seeds and prompts a question needs.

Power is that of the rule that gives the verdicts, :mod:`bench.stats.moderated` with Holm, not of a
formula near it: experiments are drawn with the given components, as sufficient statistics (the
mean is normal, the mean squares are chi-square), and decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from bench.stats.anova import MeanSquares, mean_squares
from bench.stats.cells import FloatArray, complete_cells
from bench.stats.gain import MIN_SEEDS
from bench.stats.moderated import behrens_fisher_p, moderate
from trainers.seeds import numpy_generator

DRAWS = 2000
"""Experiments drawn for a figure of power; its standard error is at most .011."""


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


@dataclass(frozen=True)
class Question:
    """What an experiment is to establish about one comparison.

    Attributes:
        components: Variances of one cell of the comparison, each >= 0.
        size: True mean difference to be found, or the bound within which a true difference of 0 is
            to be shown; score units, > 0.
        kind: ``difference`` for helps or hurts, ``equivalence`` for equivalent.
        family: Declared comparisons m; a difference is tested at alpha / m, Holm's first step.
        independent: How many independent comparisons the family is worth, from 1 to ``family``:
            the ``df`` of its :class:`bench.stats.SeedNoise` over S - 1.
        alpha: Family-wise level, and level of each one-sided test, in (0, 0.5).
    """

    components: VarianceComponents
    size: float
    kind: Literal["difference", "equivalence"] = "difference"
    family: int = 1
    independent: float = 1.0
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        c = self.components
        if min(c.seed, c.prompt, c.residual) < 0:
            raise ValueError(f"expected variances >= 0, got {c}; clip negative estimates at 0")
        if not (np.isfinite(self.size) and self.size > 0 and 0 < self.alpha < 0.5):
            raise ValueError(
                f"expected a finite size > 0 and alpha in (0, 0.5), got {self.size} and "
                f"{self.alpha}; give the size in score units and 5 % as 0.05"
            )
        if not 1 <= self.independent <= self.family:
            raise ValueError(
                f"expected 1 <= independent <= family, got {self.independent} and {self.family}"
            )


def share_question(
    d: ArrayLike, gain: ArrayLike, share: float, *, independent: float = 1.0, alpha: float = 0.05
) -> Question:
    """What it takes to show that a difference lies within a share of a gain.

    The two one-sided tests are on ``d - share gain`` and ``d + share gain``. Of each variance the
    larger of the two is taken, which errs to the safe side.

    Args:
        d: Paired differences of an experiment at hand, shape ``(S, P)``.
        gain: Those that make up the gain, same shape, of positive mean.
        share: Share of the gain that counts as none, in (0, 1).
        independent: As in :class:`Question`.
        alpha: Level of each test, in (0, 0.5).

    Raises:
        ValueError: If an argument is out of range or too few complete cells remain.
    """
    x, g = np.array(d, dtype=np.float64), np.array(gain, dtype=np.float64)
    below, above = (variance_components(x + sign * share * g) for sign in (-1.0, 1.0))
    components = VarianceComponents(
        max(below.seed, above.seed),
        max(below.prompt, above.prompt),
        max(below.residual, above.residual),
    )
    size = share * float(complete_cells(g).values.mean())
    family = int(np.ceil(independent))
    return Question(components, size, "equivalence", family, independent, alpha)


def power(question: Question, n_seeds: int, n_prompts: int) -> float:
    """Probability that the experiment establishes it, in [0, 1].

    Estimated from :data:`DRAWS` experiments, the same random numbers for every design, so that
    designs can be compared. A family whose other comparisons show effects, too, has a little more.

    Args:
        question: What is to be established.
        n_seeds: Training seeds, >= 1; fewer than 3 decide nothing.
        n_prompts: Prompts, >= 2.

    Raises:
        ValueError: If there is no seed or fewer than 2 prompts.
    """
    if n_seeds < 1 or n_prompts < 2:
        raise ValueError(f"expected at least 1 seed and 2 prompts, got {n_seeds} and {n_prompts}")
    if n_seeds < MIN_SEEDS:
        return 0.0
    c = question.components
    if c.seed == c.prompt == c.residual == 0:
        return 1.0
    chance = numpy_generator(0, "power").random((5, DRAWS))
    free, k = n_seeds - 1, question.independent
    squares = MeanSquares(
        mean=special.ndtri(chance[0])
        * np.sqrt(c.seed / n_seeds + c.prompt / n_prompts + c.residual / (n_seeds * n_prompts)),
        seed=(c.residual + n_prompts * c.seed) * _mean_square(chance[1], free),
        prompt=(c.residual + n_seeds * c.prompt) * _mean_square(chance[2], n_prompts - 1),
        residual=c.residual * _mean_square(chance[3], free * (n_prompts - 1)),
    )
    ratio = np.zeros(DRAWS)  # without a residual the family knows nothing
    if c.residual > 0:
        ratio = squares.seed / squares.residual
        if k > 1:
            others = (1 + n_prompts * c.seed / c.residual) * _mean_square(chance[4], (k - 1) * free)
            ratio = (ratio + (k - 1) * others) / k
    parts = moderate(squares, ratio, k * free, n_seeds, n_prompts)
    se = np.sqrt(parts.total / (n_seeds * n_prompts))
    if question.kind == "difference":
        p = behrens_fisher_p(np.abs(squares.mean + question.size) / se, parts)
        return float((p < question.alpha / question.family).mean())
    room = question.size - np.abs(squares.mean)
    p = behrens_fisher_p(np.maximum(room, 0.0) / se, parts)
    return float((p < 2 * question.alpha).mean())


def seeds_needed(
    question: Question, n_prompts: int, target: float = 0.8, most: int = 50
) -> int | None:
    """Fewest training seeds that reach the target power.

    More seeds cannot push the variance of the mean below sigma_b^2 / P, so the target may be out of
    reach: then more prompts are needed.

    Args:
        question: What is to be established.
        n_prompts: Prompts, >= 2.
        target: Power wanted, in (0, 1).
        most: Largest number tried, >= 3.

    Returns:
        Seeds, from 3 to ``most``, or None.

    Raises:
        ValueError: If an argument is out of range.
    """
    return _fewest(lambda n: power(question, n, n_prompts), target, MIN_SEEDS, most)


def prompts_needed(
    question: Question, n_seeds: int, target: float = 0.8, most: int = 10_000
) -> int | None:
    """Fewest prompts that reach the target power.

    More prompts cannot push the variance of the mean below sigma_a^2 / S: then more seeds are
    needed.

    Args:
        question: What is to be established.
        n_seeds: Training seeds, >= 1.
        target: Power wanted, in (0, 1).
        most: Largest number tried, >= 2.

    Returns:
        Prompts, from 2 to ``most``, or None.

    Raises:
        ValueError: If an argument is out of range.
    """
    return _fewest(lambda n: power(question, n_seeds, n), target, 2, most)


def _fewest(reached: Callable[[int], float], target: float, least: int, most: int) -> int | None:
    """Smallest number that reaches the target, which grows with it, by doubling and halving."""
    if not 0 < target < 1 or most < least:
        raise ValueError(
            f"expected target in (0, 1) and most >= {least}, got {target} and {most}; "
            "write 80 % as 0.8"
        )
    below, above = least - 1, least
    while reached(above) < target:
        if above == most:
            return None
        below, above = above, min(2 * above, most)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if reached(middle) >= target else (middle, above)
    return above


def _mean_square(uniform: FloatArray, df: float) -> FloatArray:
    """Quantiles of chi-square over its degrees of freedom."""
    return np.asarray(special.gammaincinv(df / 2, uniform) / (df / 2))
