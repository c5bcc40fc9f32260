"""The interval and test of a declared comparison, with seed noise moderated across its family.

A few training seeds say little about seed noise: on S - 1 = 2 degrees of freedom a mean square
falls below a tenth of its expectation in one case of ten, and :mod:`bench.stats.anova` then gives a
short interval *and* many degrees of freedom. Near 5 % that averages out; in the tail where Holm
looks it does not. The comparisons of a family know more together:

    ratio r = mean over the family of MSs / MSe      degrees of freedom f, see :func:`seed_noise`
    seed mean square A = max(MSs, r MSe, MSe)

A comparison may be noisier than its family, and never counts as quieter. The ratio is what is
pooled, not MSs: arms that training drives further apart differ more in seeds and in residual alike.
With excess x = max(MSs - r MSe, 0), which the comparison alone vouches for, Satterthwaite's rule
for the sum r MSe + x gives A the degrees of freedom

    d = (r MSe + x)^2 / ((r MSe)^2 / f + x^2 / (S - 1))

(empirical Bayes in the manner of Smyth 2004, with a floor in the place of shrinkage, which would
lend the family's certainty to an arm that is noisier than the others).

S P Var(mean) = A + B with B = max(MSp - MSe, 0) known on about P - 1 degrees of freedom. The two
are not merged into one Satterthwaite df: the mean is referred to the distribution of Behrens (1929)
and Fisher (1935), the sum of two independent t variables,

    p = E_W[ P(|t_g| > |mean| / sqrt((A / W + B) / (SP))) ],   W ~ chi^2_d / d

with t_g the conditional Satterthwaite approximation for B given A / W. It errs to the safe side, so
that a family of one is honest, too. ``docs/statistics.md`` compares it with the alternatives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from bench.stats.anova import MeanSquares, mean_squares
from bench.stats.cells import Cells, FloatArray, complete_cells
from bench.stats.crossed import Interval, check_confidence, crossed_interval

_NODES = 96  # of the trapezoid over log W; the error is below 1e-6 for d >= 1
_TAIL = 1e-12  # probability of W left out on either side


@dataclass(frozen=True)
class SeedNoise:
    """What a family of comparisons knows of seed noise.

    Attributes:
        ratio: Mean of MSs / MSe over the family, >= 0; 1 in expectation without seed noise.
        df: Degrees of freedom it is known on, > 0.
    """

    ratio: float
    df: float


UNKNOWN = SeedNoise(0.0, 1.0)
"""No family: each comparison rests on its own seeds."""


def seed_noise(family: Iterable[ArrayLike]) -> SeedNoise:
    """Pool seed noise over the comparisons of a family.

    Comparisons share arms, so m of them are worth fewer. For the mean of m correlated mean squares
    on S - 1 degrees of freedom each, Satterthwaite's rule gives

        f = (S - 1) m^2 / sum_ij rho_ij^2

    with rho the correlation of comparisons i and j between seeds. It is read off the seed x prompt
    residuals, where the same arms are shared and (S - 1)(P - 1) degrees of freedom tell it well.

    Args:
        family: Paired differences of each declared comparison, shape ``(S, P)`` each, the same
            seeds and prompts in the same order; a non-finite value is missing. Comparisons with
            fewer than 2 complete seeds, or without any residual, tell nothing and are passed over.

    Returns:
        The pooled ratio and its degrees of freedom; :data:`UNKNOWN` if no comparison tells.

    Raises:
        ValueError: If a matrix is not two-dimensional, too little of it is complete, or the shapes
            differ.
    """
    ratios, free, residuals = [], [], []
    for d in family:
        cells = complete_cells(d)
        if len(cells.values) < 2:
            continue
        squares = mean_squares(cells.values)
        if squares.residual > 0:
            ratios.append(float(squares.seed / squares.residual))
            free.append(len(cells.values) - 1)
            residuals.append(_standardised_residual(cells))
    if not ratios:
        return UNKNOWN
    if len({r.shape for r in residuals}) > 1:
        raise ValueError(
            "expected comparisons over the same seeds and prompts, got shapes "
            f"{sorted({r.shape for r in residuals})}; write NaN for what is missing"
        )
    flat = np.stack(residuals).reshape(len(residuals), -1)
    squared_correlation = np.square(flat @ flat.T)
    seeds = np.array(free, dtype=np.float64)
    shared = np.minimum(seeds[:, None], seeds)
    df = float(seeds.sum() ** 2 / (squared_correlation * shared).sum())
    return SeedNoise(float(seeds @ np.array(ratios) / seeds.sum()), df)


def moderated_interval(d: ArrayLike, noise: SeedNoise, confidence: float = 0.95) -> Interval:
    """Interval and test for the mean paired difference, its seed noise moderated by the family.

    Args:
        d: Paired differences, shape ``(S, P)``, score units; a non-finite value is missing.
        noise: From :func:`seed_noise` of the family that ``d`` belongs to.
        confidence: Level of the interval, unadjusted for the family, in (0, 1).

    Returns:
        As of :func:`bench.stats.crossed_interval`, with ``low``, ``high`` and ``p_value`` by the
        rule of the module's docstring; ``se``, ``df`` and the shares describe A + B, ``df`` by
        Satterthwaite's rule. With one seed it is the conditional interval over prompts.

    Raises:
        ValueError: If ``confidence`` is out of range, ``d`` is not two-dimensional, or fewer than
            2 complete prompts or no seed remain.
    """
    check_confidence(confidence)
    own = crossed_interval(d, confidence)
    if own.conditional or own.se == 0:
        return own
    cells = complete_cells(d)
    n_seeds, n_prompts = cells.values.shape
    squares = mean_squares(cells.values)
    parts = moderate(squares, noise.ratio, noise.df, n_seeds, n_prompts)
    se = float(np.sqrt(parts.total / cells.values.size))
    half = _quantile(parts, confidence) * se
    residual = float(squares.residual / parts.total)
    prompt = float(parts.prompt / parts.total)
    return Interval(
        mean=own.mean,
        low=own.mean - half,
        high=own.mean + half,
        se=se,
        df=float(parts.total**2 / (parts.seed**2 / parts.seed_df + parts.prompt_spread)),
        p_value=float(behrens_fisher_p(np.asarray(abs(own.mean) / se), parts)),
        confidence=confidence,
        n_seeds=n_seeds,
        n_prompts=n_prompts,
        n_missing=own.n_missing,
        missing_share=own.missing_share,
        dropped_seeds=own.dropped_seeds,
        dropped_prompts=own.dropped_prompts,
        share_seed=max(1.0 - residual - prompt, 0.0),
        share_prompt=prompt,
        share_residual=residual,
        conditional=False,
    )


def moderated_p(values: FloatArray, noise: SeedNoise) -> float:
    """The two-sided p of :func:`moderated_interval` alone, in [0, 1].

    Args:
        values: Complete paired differences, shape ``(S, P)``, S >= 2 and P >= 2.
        noise: From :func:`seed_noise`.
    """
    squares = mean_squares(values)
    mean = abs(float(squares.mean))
    parts = moderate(squares, noise.ratio, noise.df, *values.shape)
    if parts.total == 0:
        return float(mean == 0)
    se = np.sqrt(parts.total / values.size)
    return float(behrens_fisher_p(np.asarray(mean / se), parts))


class Parts(NamedTuple):
    """S P Var(mean) = seed + prompt; arrays of equal shape."""

    seed: FloatArray
    """A, the residual included."""
    seed_df: FloatArray
    """Its degrees of freedom d."""
    prompt: FloatArray
    """B, without the residual."""
    prompt_spread: FloatArray
    """Half the variance of B: MSp^2 / (P-1) + MSe^2 / ((S-1)(P-1))."""

    @property
    def total(self) -> FloatArray:
        """A + B."""
        return self.seed + self.prompt


def moderate(
    squares: MeanSquares,
    ratio: FloatArray | float,
    df: FloatArray | float,
    n_seeds: int,
    n_prompts: int,
) -> Parts:
    """The two parts of the variance of the mean, given the seed noise of the family.

    Args:
        squares: Mean squares, of any shape, not all three 0.
        ratio: Of :class:`SeedNoise`, broadcast against them.
        df: Likewise.
        n_seeds: S >= 2.
        n_prompts: P >= 2.
    """
    family = ratio * squares.residual
    excess = np.maximum(squares.seed - family, 0.0)
    floor = family + excess
    spread = np.square(family) / df + np.square(excess) / (n_seeds - 1)
    known = spread > 0
    seed_df = np.where(known, np.square(floor) / np.where(known, spread, 1.0), n_seeds - 1.0)
    prompt_spread = np.square(squares.prompt) / (n_prompts - 1)
    prompt_spread += np.square(squares.residual) / ((n_seeds - 1) * (n_prompts - 1))
    prompt = np.maximum(squares.prompt - squares.residual, 0.0)
    return Parts(np.maximum(floor, squares.residual), seed_df, prompt, prompt_spread)


def behrens_fisher_p(t: FloatArray, parts: Parts) -> FloatArray:
    """Two-sided p of a mean ``t`` standard errors from 0, in [0, 1].

    Args:
        t: ``|mean| / sqrt(parts.total / (S P))``, of the shape of the parts, >= 0.
        parts: From :func:`moderate`, total > 0.
    """
    seed, seed_df, prompt, spread = (part[..., None] for part in parts)
    half = seed_df / 2
    low = np.log(special.gammaincinv(half, _TAIL) / half)
    high = np.log(special.gammainccinv(half, _TAIL) / half)
    x = low + np.linspace(0.0, 1.0, _NODES) * (high - low)
    weight = np.exp(half * (x - np.expm1(x)))  # density of log W, but for a constant
    variance = seed * np.exp(-x) + prompt
    df = np.square(variance) / np.maximum(spread, 1e-9 * np.square(variance))
    tail = special.stdtr(df, -t[..., None] * np.sqrt((seed + prompt) / variance))
    return np.asarray(np.minimum(2 * (weight * tail).sum(axis=-1) / weight.sum(axis=-1), 1.0))


def _quantile(parts: Parts, confidence: float) -> float:
    """Standard errors from the mean to either bound."""

    def beyond(t: float) -> float:
        return float(behrens_fisher_p(np.asarray(t), parts)) - (1.0 - confidence)

    high = 2.0
    while beyond(high) > 0:
        high *= 2.0
    return float(optimize.brentq(beyond, 0.0, high, xtol=1e-10))


def _standardised_residual(cells: Cells) -> FloatArray:
    """Residuals in the shape of the input, dropped rows and columns 0, of unit sum of squares."""
    d = cells.values - cells.values[0, 0]
    residual = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
    full = np.zeros((cells.seeds.size, cells.prompts.size))
    full[np.ix_(cells.seeds, cells.prompts)] = residual / np.sqrt(np.square(residual).sum())
    return full
