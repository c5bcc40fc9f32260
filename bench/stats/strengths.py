"""Bradley-Terry strengths: one number for each row, from who wins against whom.

Row i beats row j with probability ``1 / (1 + exp(theta_j - theta_i))`` (Bradley and Terry 1952).
The likelihood of the wins, a tie being half of one, has a single maximum once every two rows have
also tied once (Ford 1957): without that, a row that always wins would be infinitely strong. It is
found by Newton's method.

Outcomes of one prompt hang together, so the interval is a bootstrap over whole prompts, on which
the model is fitted again. It is conditional on the training runs at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.stats.cells import FloatArray, average_images
from bench.stats.crossed import check_confidence
from bench.stats.resample import counts
from bench.stats.wins import win_matrix

_CHUNK = 100  # draws that are fitted together
_STEPS = 100  # of Newton's method; it takes about six


@dataclass(frozen=True)
class Strength:
    """A row's log-odds of beating the first row, and their interval.

    Attributes:
        value: 0 for the first row; ``log 3`` for one that wins three times as often as it loses.
        low: Lower percentile over resampled prompts.
        high: Upper percentile.
    """

    value: float
    low: float
    high: float

    @property
    def chance(self) -> float:
        """Probability of beating the first row, in (0, 1)."""
        return float(1 / (1 + np.exp(-self.value)))


def strengths(
    rows: Sequence[FloatArray],
    *,
    eps: float = 0.0,
    seed: int,
    draws: int = 1_000,
    confidence: float = 0.95,
) -> list[Strength]:
    """Bradley-Terry strengths of rows that were scored on the same prompts.

    Two rows meet once on each prompt, with the mean outcome over images and the training seeds that
    the shorter of them has, in order.

    Args:
        rows: Scores, higher being better, shape ``(S_i, P, K)``; a non-finite value is missing.
        eps: Tie band, score units, >= 0.
        seed: Seed of the random numbers, >= 0.
        draws: Resamples of the prompts, >= 1.
        confidence: Level of the intervals, in (0, 1).

    Returns:
        A strength for each row, relative to the first.

    Raises:
        ValueError: If the shapes do not fit or an argument is out of range.
    """
    check_confidence(confidence)
    n, first, second = len(rows), *np.triu_indices(len(rows), 1)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    outcomes = np.stack([_outcomes(rows[i], rows[j], eps) for i, j in pairs])
    met = np.isfinite(outcomes)
    won, lost = np.where(met, outcomes, 0.0), np.where(met, 1.0 - outcomes, 0.0)

    def fitted(weights: FloatArray) -> FloatArray:
        wins = np.zeros((len(weights), n, n))
        wins[:, first, second] = weights @ won.T
        wins[:, second, first] = weights @ lost.T
        return bradley_terry(wins)

    prompts = outcomes.shape[1]
    value = fitted(np.ones((1, prompts)))[0]
    rng = np.random.default_rng(seed)
    sizes = [_CHUNK] * (draws // _CHUNK) + [draws % _CHUNK] * (draws % _CHUNK > 0)
    drawn = np.concatenate([fitted(counts(rng, prompts, size)) for size in sizes])
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return [Strength(*map(float, each)) for each in zip(value, low, high, strict=True)]


def _outcomes(one: FloatArray, other: FloatArray, eps: float) -> FloatArray:
    """Outcome of row against row on each prompt, 1 all won to 0 all lost, NaN where they miss."""
    seeds = min(len(one), len(other))
    matrix = win_matrix(one[:seeds], other[:seeds], eps)
    by_prompt = np.moveaxis(matrix, 1, 0).reshape(1, matrix.shape[1], -1)
    return np.asarray(average_images(by_prompt)[0])


def bradley_terry(wins: FloatArray) -> FloatArray:
    """Log-odds against the first row, at the maximum of the likelihood.

    Args:
        wins: ``wins[..., i, j]``, how often i has beaten j, a tie counting half, >= 0; shape
            ``(..., n, n)``. One tie of every two rows is added.

    Returns:
        Shape ``(..., n)``; the first is 0.
    """
    n = wins.shape[-1]
    wins = wins + 0.5 * (1 - np.eye(n))
    met = wins + np.swapaxes(wins, -1, -2)
    theta: FloatArray = np.zeros(wins.shape[:-1])
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(theta[..., None, :] - theta[..., :, None]))
        gradient = (wins - met * expected).sum(axis=-1)
        weight = met * expected * (1 - expected)
        curvature = weight.sum(axis=-1)[..., None] * np.eye(n) - weight
        inner = np.linalg.solve(curvature[..., 1:, 1:], gradient[..., 1:, None])[..., 0]
        step = np.clip(inner, -1, 1)  # Far from the maximum a whole step may lead past it.
        theta[..., 1:] += step
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return theta
