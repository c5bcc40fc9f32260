"""The primary interval: training seeds and prompts crossed, both random.

The formulas are derived in :mod:`bench.stats.anova`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.stats.anova import MeanSquares, mean_squares, standard_error, two_sided_p
from bench.stats.cells import Cells, FloatArray, complete_cells


@dataclass(frozen=True)
class Interval:
    """A confidence interval for the mean paired difference.

    Attributes:
        mean: Mean of the complete cells, score units; positive favours *on*.
        low: Lower bound.
        high: Upper bound.
        se: Standard error, >= 0; 0 only if the complete cells are all equal.
        df: Degrees of freedom of the t distribution, > 0; of a moderated interval, which is not of
            t, Satterthwaite's for its variance.
        p_value: Two-sided p against a mean of 0, in [0, 1], never NaN. With ``se == 0`` it is 1 if
            the mean is exactly 0 and 0 otherwise.
        confidence: Level of ``low`` and ``high``, in (0, 1); never adjusted for a family.
        n_seeds: Training seeds analysed.
        n_prompts: Prompts analysed.
        n_missing: Missing cells of the input matrix.
        missing_share: ``n_missing`` over all cells of the input matrix, in [0, 1].
        dropped_seeds: Wholly missing runs, dropped.
        dropped_prompts: Prompts dropped for a missing cell in a remaining run.
        share_seed: Share of Var(mean) from training seeds, in [0, 1]; what more seeds reduce.
        share_prompt: Share from prompts, in [0, 1]. With one seed it holds the residual too, which
            cannot be told apart, and is 1.
        share_residual: Share from seed x prompt residual, in [0, 1]. The three sum to 1, or to 0
            if ``se == 0``.
        conditional: True with one seed: prompts only, *conditional on one training run*.
    """

    mean: float
    low: float
    high: float
    se: float
    df: float
    p_value: float
    confidence: float
    n_seeds: int
    n_prompts: int
    n_missing: int
    missing_share: float
    dropped_seeds: int
    dropped_prompts: int
    share_seed: float
    share_prompt: float
    share_residual: float
    conditional: bool


def crossed_interval(d: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval for the mean paired difference over training seeds x prompts.

    With one seed left the interval is Student's t over prompts, marked ``conditional``: it says
    nothing about another training run and is never used for a verdict.

    Args:
        d: Paired differences, shape ``(S, P)``, score units; a non-finite value is missing.
        confidence: Level, in (0, 1).

    Returns:
        The interval with its test, variance shares and counts.

    Raises:
        ValueError: If ``confidence`` is out of range, ``d`` is not two-dimensional, or fewer than
            2 complete prompts or no seed remain.
    """
    check_confidence(confidence)
    cells = complete_cells(d)
    n_seeds, n_prompts = cells.values.shape
    if n_seeds == 1:
        mean, se, df, shares = _prompts_only(cells.values[0])
    else:
        squares = mean_squares(cells.values)
        mean = squares.mean
        parts = (squares.seed, squares.prompt, squares.residual)
        se, df = standard_error(*parts, n_seeds, n_prompts)
        shares = _shares(squares)
    return _assemble(cells, mean, se, df, shares, confidence)


def effect_size_dz(d: ArrayLike) -> float:
    """Standardised paired effect dz = mean / standard deviation over all complete cells.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.

    Returns:
        dz, dimensionless. If all cells are equal: 0 for a mean of 0, else infinite with its sign.

    Raises:
        ValueError: If ``d`` is not two-dimensional or too few complete cells remain.
    """
    values = complete_cells(d).values
    centred = values - values[0, 0]
    mean, sd = float(values[0, 0] + centred.mean()), float(centred.std(ddof=1))
    if sd == 0:
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return mean / sd


def check_confidence(confidence: float) -> None:
    """Refuse a level outside (0, 1) by ``ValueError``."""
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}; write 95 % as 0.95")


def _prompts_only(
    row: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, tuple[float, float, float]]:
    """Student's t over the prompts of one run: mean, se, df and variance shares."""
    centred = row - row[0]
    se = np.asarray(centred.std(ddof=1) / np.sqrt(row.size))
    shares = (0.0, 1.0 if se > 0 else 0.0, 0.0)
    return np.asarray(row[0] + centred.mean()), se, np.asarray(row.size - 1.0), shares


def _shares(squares: MeanSquares) -> tuple[float, float, float]:
    """Shares of S P Var(mean) = P sigma_a^2 + S sigma_b^2 + sigma_e^2, clipped at 0."""
    residual = float(squares.residual)
    seed = max(float(squares.seed) - residual, 0.0)
    prompt = max(float(squares.prompt) - residual, 0.0)
    total = seed + prompt + residual
    if total == 0:
        return 0.0, 0.0, 0.0
    return seed / total, prompt / total, residual / total


def _assemble(
    cells: Cells,
    mean: FloatArray,
    se: FloatArray,
    df: FloatArray,
    shares: tuple[float, float, float],
    confidence: float,
) -> Interval:
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * float(se)
    n_seeds, n_prompts = cells.values.shape
    return Interval(
        mean=float(mean),
        low=float(mean) - half,
        high=float(mean) + half,
        se=float(se),
        df=float(df),
        p_value=float(two_sided_p(mean, se, df)),
        confidence=confidence,
        n_seeds=n_seeds,
        n_prompts=n_prompts,
        n_missing=cells.n_missing,
        missing_share=cells.n_missing / (cells.seeds.size * cells.prompts.size),
        dropped_seeds=int((~cells.seeds).sum()),
        dropped_prompts=int((~cells.prompts).sum()),
        share_seed=shares[0],
        share_prompt=shares[1],
        share_residual=shares[2],
        conditional=n_seeds == 1,
    )
