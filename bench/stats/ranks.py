"""Ranks that respect uncertainty: of each row a range of places, not one place.

A row is placed above another only where their paired difference is shown. For row i the tests of
its differences from all others are adjusted by Holm, and

    best place = 1 + number of rows shown to be better
    worst place = number of rows - number of rows shown to be worse

With the family-wise error of those tests at most alpha, the range holds the row's true place with
probability ``1 - alpha`` at least: a marginal confidence set of its rank (Mogstad, Romano, Shaikh
and Wilhelm 2024, Review of Economic Studies 91, 476-518). All rows may tie at "1-n".

The tests are those of :mod:`bench.stats.moderated`, with the mean ratio MSs / MSe over all pairs of
rows as the family's seed noise, on no more degrees of freedom than a single pair has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.stats.anova import MeanSquares
from bench.stats.cells import FloatArray
from bench.stats.decide import holm
from bench.stats.gain import MIN_SEEDS
from bench.stats.moderated import Parts, behrens_fisher_p, moderate

Range = tuple[int, int]
"""Best and worst place, from 1."""


def rank_ranges(rows: Sequence[FloatArray], alpha: float = 0.05) -> list[Range]:
    """The range of places of each row; 1 is the best.

    Two rows are compared over the training seeds that the shorter of them has, in order: runs of
    equal seeds are pairs, others are independent, and to pair these costs power and nothing else.
    Fewer than 3 seeds show nothing, as everywhere here. Prompts that a row lacks are left out.

    Args:
        rows: Scores or gains, higher being better, shape ``(S_i, P)`` each, the same prompts in the
            same order; a non-finite value is missing.
        alpha: Level of the family of each row, in (0, 0.5).

    Returns:
        A range for each row. Where fewer than 2 prompts are complete, all are the widest.

    Raises:
        ValueError: If a row is not two-dimensional or the numbers of prompts differ.
    """
    if any(row.ndim != 2 for row in rows) or len({row.shape[1] for row in rows}) > 1:
        raise ValueError(
            f"expected rows of shape (seeds, prompts), got {[row.shape for row in rows]}; give "
            "every row the same prompts, with NaN for what is missing"
        )
    n = len(rows)
    seeds = np.array([len(row) for row in rows])
    p, ahead = np.ones((n, n)), np.zeros((n, n))
    whole = np.all([np.isfinite(row).all(axis=0) for row in rows], axis=0) if n else np.zeros(0)
    if whole.sum() >= 2:
        for several in sorted(set(seeds[seeds >= MIN_SEEDS].tolist())):
            which = np.flatnonzero(seeds >= several)
            block = np.stack([rows[i][:several][:, whole] for i in which.tolist()])
            place = np.ix_(which, which)
            p[place], ahead[place] = _compared(block)
    return [_range(np.delete(p[i], i), np.delete(ahead[i], i), alpha) for i in range(n)]


def _range(p: FloatArray, ahead: FloatArray, alpha: float) -> Range:
    shown = holm(p) < alpha
    better, worse = (int((shown & side).sum()) for side in (ahead < 0, ahead > 0))
    return 1 + better, len(p) + 1 - worse


def _compared(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two-sided p and mean of row i less row j, both ``[n, n]``, from ``[n, S, P]``."""
    n, n_seeds, n_prompts = rows.shape
    squares = _squares(rows)
    above = np.triu_indices(n, 1)
    residual = squares.residual[above]
    known = residual > 0
    ratio = float((squares.seed[above][known] / residual[known]).mean()) if known.any() else 0.0
    p = np.ones((n, n))
    for i in range(n - 1):  # A row at a time: each pair needs a hundred values.
        of_row = MeanSquares(*(np.asarray(part[i, i + 1 :]) for part in vars(squares).values()))
        parts = moderate(of_row, ratio, n_seeds - 1, n_seeds, n_prompts)
        p[i, i + 1 :] = p[i + 1 :, i] = _p(of_row.mean, parts, n_seeds * n_prompts)
    return p, squares.mean


def _p(mean: FloatArray, parts: Parts, cells: int) -> FloatArray:
    p = np.where(mean == 0, 1.0, 0.0)
    varied = parts.total > 0
    kept = Parts(*(part[varied] for part in parts))
    p[varied] = behrens_fisher_p(np.abs(mean[varied]) / np.sqrt(kept.total / cells), kept)
    return p


def _squares(rows: FloatArray) -> MeanSquares:
    """Mean squares of the difference of every two rows, ``[n, n]`` each.

    All of them are squared distances of what is linear in a row, which one matrix product gives.
    """
    n, n_seeds, n_prompts = rows.shape
    grand, by_seed, by_prompt = rows.mean(axis=(1, 2)), rows.mean(axis=2), rows.mean(axis=1)
    seed, prompt = by_seed - grand[:, None], by_prompt - grand[:, None]
    residual = rows - by_seed[:, :, None] - prompt[:, None]
    free = (n_seeds - 1) * (n_prompts - 1)
    return MeanSquares(
        mean=grand[:, None] - grand,
        seed=_distances(seed) * n_prompts / (n_seeds - 1),
        prompt=_distances(prompt) * n_seeds / (n_prompts - 1),
        residual=_distances(residual.reshape(n, -1)) / free,
    )


def _distances(vectors: FloatArray) -> FloatArray:
    """Squared distances, ``[n, n]``; 0 where they are no more than rounding."""
    products = vectors @ vectors.T
    sizes = np.diag(products)[:, None] + np.diag(products)
    distances = sizes - 2 * products
    return np.where(distances > 1e-12 * sizes, distances, 0.0)
