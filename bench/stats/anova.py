"""Two-way crossed analysis of variance, seeds x prompts, over any leading axes.

Model: ``d[s, p] = mu + a_s + b_p + e_sp`` with independent zero-mean seed, prompt and residual
effects. With the mean squares of the two-way layout without replication,

    MSs = P var(row means)     E = sigma_e^2 + P sigma_a^2     S - 1 degrees of freedom
    MSp = S var(column means)  E = sigma_e^2 + S sigma_b^2     P - 1
    MSe = residual             E = sigma_e^2                   (S - 1)(P - 1)

    Var(mean) = sigma_a^2/S + sigma_b^2/P + sigma_e^2/(SP)
              = E[MSs + MSp - MSe] / (SP)

A variance component cannot be negative. With negative estimates set to zero S P Var(mean) becomes

    V = max(MSs - MSe, 0) + max(MSp - MSe, 0) + MSe = max(MSs + MSp - MSe, MSs, MSp, MSe)

The last branch is needed: in [[2, 0], [0, 2]] MSs = MSp = 0, and without it the error would be 0.

Degrees of freedom (Satterthwaite 1946), for V a sum of mean squares with coefficients +-1:

    df = V^2 / (MSs^2/(S-1) + MSp^2/(P-1) + MSe^2/((S-1)(P-1)))

All three terms stay in the denominator in every branch of the maximum. Keeping only the branch's
own term would give df = P - 1 as soon as MSs falls below MSe, although that zero is itself an
estimate on S - 1 degrees of freedom: df would jump at the boundary (with MSs = MSp = MSe, S = 3,
from below 2 to P - 1), and such intervals were measurably too short. Kept, df is continuous in the
data. Where one factor alone varies it is S - 1 or P - 1, Student's t on the row or column means.

The formula is approximate. In simulation its 95 % intervals cover well from 3 seeds on where seed
noise is about as large as the rest (the tests), err to the safe side where there is none, and where
seed noise dominates had up to about 7 % false positives at 3 seeds and 10 % at 2. Its far tail,
where a correction for many comparisons looks, is not honest: :mod:`bench.stats.moderated` is for
that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.stats.cells import FloatArray


@dataclass(frozen=True, eq=False)
class MeanSquares:
    """Two-way mean squares; each array has the leading axes of the input."""

    mean: FloatArray
    seed: FloatArray
    prompt: FloatArray
    residual: FloatArray


def mean_squares(d: FloatArray) -> MeanSquares:
    """Two-way mean squares of complete matrices.

    Args:
        d: Shape ``(..., S, P)``, finite, S >= 2 and P >= 2.

    Returns:
        Grand mean and the three mean squares, each of shape ``(...)``.
    """
    n_seeds, n_prompts = d.shape[-2:]
    origin = d[..., 0, 0]  # exact zeros for equal cells, and less cancellation for large scores
    centred = d - origin[..., None, None]
    rows, columns = centred.mean(axis=-1), centred.mean(axis=-2)
    grand = centred.mean(axis=(-2, -1))
    residual = centred - rows[..., :, None] - columns[..., None, :] + grand[..., None, None]
    return MeanSquares(
        mean=origin + grand,
        seed=n_prompts * rows.var(axis=-1, ddof=1),
        prompt=n_seeds * columns.var(axis=-1, ddof=1),
        residual=np.square(residual).sum(axis=(-2, -1)) / ((n_seeds - 1) * (n_prompts - 1)),
    )


def standard_error(
    seed: FloatArray, prompt: FloatArray, residual: FloatArray, n_seeds: int, n_prompts: int
) -> tuple[FloatArray, FloatArray]:
    """Standard error of the grand mean and its Satterthwaite degrees of freedom.

    Args:
        seed: Mean square MSs, any shape.
        prompt: Mean square MSp, same shape.
        residual: Mean square MSe, same shape.
        n_seeds: S >= 2.
        n_prompts: P >= 2.

    Returns:
        ``(se, df)`` of the same shape. Where all mean squares are 0, se = 0 and df = S - 1.
    """
    total = np.maximum(seed - residual, 0) + np.maximum(prompt - residual, 0) + residual
    scale = np.where(total > 0, total, 1.0)
    free = (n_seeds - 1, n_prompts - 1, (n_seeds - 1) * (n_prompts - 1))
    parts = (seed, prompt, residual)
    spread = sum(np.square(part / scale) / df for part, df in zip(parts, free, strict=True))
    df = 1.0 / np.where(total > 0, spread, 1.0 / (n_seeds - 1))
    return np.sqrt(total / (n_seeds * n_prompts)), df


def two_sided_p(mean: FloatArray, se: FloatArray, df: FloatArray) -> FloatArray:
    """Two-sided t-test p against 0; where ``se == 0``, 1 for a mean of 0 and else 0."""
    t = np.abs(mean) / np.where(se > 0, se, 1.0)
    exact = np.where(mean == 0, 1.0, 0.0)
    return np.where(se > 0, 2.0 * stats.t.sf(t, df), exact)
