"""Robust companions of the crossed interval: resampling and rank tests.

They show how far the primary interval hangs on normality; they never make the verdict. Random
numbers come from the given seed alone, and do not depend on how the work is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.stats.cells import FloatArray, complete_cells

_CHUNK_VALUES = 2_000_000  # largest temporary array, in values (16 MB)
_FEW = 1_000  # things that a multinomial distribution is drawn of


@dataclass(frozen=True)
class BootstrapInterval:
    """A percentile interval for the mean paired difference, score units.

    Attributes:
        mean: Mean of the complete cells.
        low: Lower percentile of the resampled means.
        high: Upper percentile.
        confidence: Level, in (0, 1).
        draws: Resamples.
        seed: Seed of the random numbers.
        label: What it is conditional on.
    """

    mean: float
    low: float
    high: float
    confidence: float
    draws: int
    seed: int
    label: str


@dataclass(frozen=True)
class Companion:
    """A two-sided p-value, in [0, 1], with the words that must be printed beside it."""

    p_value: float
    label: str


def pigeonhole_bootstrap(
    d: ArrayLike, *, seed: int, draws: int = 10_000, confidence: float = 0.95
) -> BootstrapInterval:
    """Two-way bootstrap: seeds and prompts drawn with replacement, independently (Owen 2007).

    A draw has multinomial weights w over seeds and v over prompts and mean ``w' d v / (SP)``. It
    overstates the residual variance (about threefold) and, drawing from few runs, understates that
    of the seeds by (S-1)/S: with few seeds it is for plots, not for claims.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.
        seed: Seed of the random numbers, >= 0.
        draws: Resamples, >= 1.
        confidence: Level, in (0, 1).

    Returns:
        The percentile interval.

    Raises:
        ValueError: If an argument is out of range or too few complete cells remain.
    """
    return pigeonhole_bootstraps([d], seed=seed, draws=draws, confidence=confidence)[0]


def pigeonhole_bootstraps(
    matrices: Sequence[ArrayLike], *, seed: int, draws: int = 10_000, confidence: float = 0.95
) -> list[BootstrapInterval]:
    """:func:`pigeonhole_bootstrap` of each matrix, to the bit, in a fraction of the time.

    Weights depend on the seed and the shape alone and take most of the time to draw, so matrices
    of one shape share them.

    Args:
        matrices: Paired differences, shape ``(S, P)`` each.
        seed: Seed of the random numbers, >= 0.
        draws: Resamples, >= 1.
        confidence: Level, in (0, 1).

    Returns:
        The percentile intervals, in the order given.

    Raises:
        ValueError: If an argument is out of range or too few complete cells remain.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}; write 95 % as 0.95")
    complete = [complete_cells(d).values for d in matrices]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, values in enumerate(complete):
        by_shape.setdefault(values.shape, []).append(index)
    means: dict[int, FloatArray] = {}
    for indices in by_shape.values():
        drawn = _resampled_means([complete[i] for i in indices], seed, draws)
        means.update(zip(indices, drawn, strict=True))
    found = []
    for index, values in enumerate(complete):
        low, high = np.quantile(means[index], [0.5 - confidence / 2, 0.5 + confidence / 2])
        n_seeds, n_prompts = values.shape
        label = f"two-way bootstrap over {n_seeds} runs x {n_prompts} prompts"
        if n_seeds == 1:
            label = f"bootstrap over {n_prompts} prompts, conditional on one training run"
        found.append(
            BootstrapInterval(
                float(values.mean()), float(low), float(high), confidence, draws, seed, label
            )
        )
    return found


def sign_flip_p(d: ArrayLike, *, seed: int, draws: int = 10_000) -> Companion:
    """Randomisation test of a zero mean: flip the signs of seed blocks and of prompt blocks.

    Each draw is ``mean_s(u_s r_s) + mean_p(v_p (c_p - m))`` with u, v independent random signs, r
    the row means, c the column means and m the grand mean; p = (c+1)/(B+1) where c counts draws at
    least as far from 0 as m (Phipson & Smyth 2010).

    Flipping a row swaps *on* and *off* of one paired training run. If the component does nothing
    that leaves the distribution unchanged, and with equal prompts the test is exact. The prompt
    term adds the noise of having drawn these prompts (a mean of zero, but an effect that differs
    between prompts), for prompt effects symmetric about their mean. Its variance in expectation is
    that of the mean plus sigma_b^2/(SP) + sigma_e^2/(SP): it errs to the safe side. Flipping cells
    by u_s v_p instead would treat all S P cells as independent, which they are not.

    With S runs no p below about 2^-S can be reached: with 3 runs the test cannot reject at 5 %.
    With one seed the signs of the prompts are flipped about zero, the ordinary sign-flip test,
    conditional on that run.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.
        seed: Seed of the random numbers, >= 0.
        draws: Random sign patterns, >= 1.

    Returns:
        The p-value and its label.

    Raises:
        ValueError: If an argument is out of range or too few complete cells remain.
    """
    values = complete_cells(d).values
    n_seeds, n_prompts = values.shape
    rows, columns, grand = values.mean(axis=1), values.mean(axis=0), float(values.mean())
    label = f"sign flips of {n_seeds} runs and {n_prompts} prompts; floor about 2^-{n_seeds}"
    deviations = columns - grand
    if n_seeds == 1:
        rows, deviations = np.zeros(1), columns
        label = f"sign flips of {n_prompts} prompts, conditional on one training run"
    seed_rng, prompt_rng = _streams(seed)
    extreme = 0
    for size in _chunks(draws, n_prompts):
        flipped = _signs(seed_rng, size, n_seeds) @ rows / n_seeds
        flipped += _signs(prompt_rng, size, n_prompts) @ deviations / n_prompts
        extreme += int((np.abs(flipped) >= abs(grand) * (1 - 1e-12)).sum())
    return Companion((extreme + 1) / (draws + 1), label)


def wilcoxon_prompts(d: ArrayLike) -> Companion:
    """Wilcoxon signed-rank test on the prompt means, zeros dropped; p = 1 if all are zero.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.

    Returns:
        Two-sided p, conditional on the training runs at hand.

    Raises:
        ValueError: If ``d`` is not two-dimensional or too few complete cells remain.
    """
    means, label = _prompt_means(d, "Wilcoxon signed-rank")
    if not means.any():
        return Companion(1.0, label)
    return Companion(float(stats.wilcoxon(means).pvalue), label)


def sign_test(d: ArrayLike) -> Companion:
    """Sign test on the prompt means, zeros dropped; p = 1 if all are zero.

    Args:
        d: Paired differences, shape ``(S, P)``; a non-finite value is missing.

    Returns:
        Two-sided exact binomial p, conditional on the training runs at hand.

    Raises:
        ValueError: If ``d`` is not two-dimensional or too few complete cells remain.
    """
    means, label = _prompt_means(d, "sign test")
    positive, nonzero = int((means > 0).sum()), int((means != 0).sum())
    if nonzero == 0:
        return Companion(1.0, label)
    return Companion(float(stats.binomtest(positive, nonzero).pvalue), label)


def _prompt_means(d: ArrayLike, name: str) -> tuple[FloatArray, str]:
    values = complete_cells(d).values
    runs = "one training run" if len(values) == 1 else f"these {len(values)} training runs"
    return values.mean(axis=0), f"{name} over {values.shape[1]} prompts, conditional on {runs}"


def _resampled_means(matrices: list[FloatArray], seed: int, draws: int) -> list[FloatArray]:
    """Means of ``draws`` resamples of each matrix; all have one shape, and share the weights."""
    n_seeds, n_prompts = matrices[0].shape
    seed_rng, prompt_rng = _streams(seed)
    stacked = np.concatenate(matrices)
    parts: list[FloatArray] = []
    for size in _chunks(draws, n_prompts):
        seeds, prompts = counts(seed_rng, n_seeds, size), counts(prompt_rng, n_prompts, size)
        of_seeds = (stacked @ prompts.T).reshape(len(matrices), n_seeds, size)
        parts.append(np.einsum("bs,msb->mb", seeds, of_seeds))
    return [*(np.concatenate(parts, axis=1) / (n_seeds * n_prompts))]


def counts(rng: np.random.Generator, n: int, draws: int) -> FloatArray:
    """How often each of n things is in a sample of n with replacement, ``[draws, n]``.

    Of many things, who is drawn is counted, in a tenth of the time that the multinomial
    distribution takes; of few, it is kept for the digits that were published with it.
    """
    if n <= _FEW:
        return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    drawn = rng.integers(n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def _streams(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """One stream for seeds, one for prompts, so that the chunk size changes nothing."""
    first, second = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(first), np.random.default_rng(second)


def _signs(rng: np.random.Generator, rows: int, columns: int) -> FloatArray:
    return rng.integers(0, 2, size=(rows, columns)).astype(np.float64) * 2.0 - 1.0


def _chunks(draws: int, width: int) -> Iterator[int]:
    """Sizes that sum to ``draws``, each giving at most ``_CHUNK_VALUES`` values."""
    if draws < 1:
        raise ValueError(f"expected draws >= 1, got {draws}; 10000 is the default")
    size = max(1, _CHUNK_VALUES // width)
    while draws > 0:
        yield min(size, draws)
        draws -= size
