"""The two A/A controls: how far identical arms lie apart. Checks of sanity; they set no bound.

Base against base under other image noise shows whether the pipeline is centred, and how large image
noise is. It is unpaired where comparisons are paired (they share the noise of each image), so it
says nothing about the precision of a comparison.

An arm against itself under another training seed, at equal image noise, shows how large training
noise is: what a comparison of single runs would take for an effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bench.stats.cells import complete_cells, paired_differences
from bench.stats.crossed import Interval, check_confidence, crossed_interval


@dataclass(frozen=True)
class ImageNoise:
    """Base against base under other image noise.

    Attributes:
        interval: Crossed interval of the mean difference; pairs of image sets stand where training
            seeds do elsewhere. It should hold 0.
        spread: Root mean square over the prompts of the difference of one image from another of the
            same prompt, score units, >= 0.
    """

    interval: Interval
    spread: float


@dataclass(frozen=True)
class SeedPair:
    """One training run of an arm against another of the same arm.

    Attributes:
        first: Row of the first run in the scores.
        second: Row of the second run.
        interval: Student's t over prompts of second - first, score units: *conditional on these two
            runs*, so that it may well exclude 0. That is training noise.
    """

    first: int
    second: int
    interval: Interval


@dataclass(frozen=True)
class TrainingNoise:
    """An arm against itself under other training seeds, at equal image noise.

    Attributes:
        pairs: All unordered pairs of runs. They are not independent: S runs have S - 1 degrees of
            freedom.
        typical: Root mean square of the pairs' mean differences, sqrt(2) times the standard
            deviation between runs, score units, >= 0.
        low: Lower bound of the true one for these prompts, from chi^2 on S - 1 degrees of freedom.
        high: Upper bound.
        confidence: Level of all bounds, in (0, 1).
    """

    pairs: tuple[SeedPair, ...]
    typical: float
    low: float
    high: float
    confidence: float


def image_noise(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> ImageNoise:
    """The control base against base.

    Args:
        first: Scores of the base model, shape ``(pairs, P)`` or ``(pairs, P, K)``.
        second: Scores of the same model under other image noise, same shape and prompts.
        confidence: Level of the interval, in (0, 1).

    Returns:
        The mean difference with its interval, and the size of the noise.

    Raises:
        ValueError: If the shapes differ or too few complete cells remain.
    """
    d = paired_differences(second, first)
    values = complete_cells(d).values
    return ImageNoise(crossed_interval(d, confidence), float(np.sqrt(np.square(values).mean())))


def training_noise(scores: ArrayLike, confidence: float = 0.95) -> TrainingNoise:
    """The control of an arm against itself, from the training seeds it has anyway.

    Args:
        scores: Scores of one arm, shape ``(S, P)``, images averaged, every run under the same image
            noise; a non-finite value is missing.
        confidence: Level of all intervals, in (0, 1).

    Returns:
        Every pair of runs, and the typical difference of two.

    Raises:
        ValueError: If fewer than 2 runs or 2 complete prompts remain.
    """
    check_confidence(confidence)
    cells = complete_cells(scores)
    rows = np.flatnonzero(cells.seeds)
    if len(rows) < 2:
        raise ValueError(f"expected at least 2 training runs, got {len(rows)}; train another seed")
    pairs = tuple(
        SeedPair(
            int(rows[i]),
            int(rows[j]),
            crossed_interval((cells.values[j] - cells.values[i])[None], confidence),
        )
        for i, j in combinations(range(len(rows)), 2)
    )
    df = len(rows) - 1
    typical = float(np.sqrt(2.0 * cells.values.mean(axis=1).var(ddof=1)))
    tail = (1 - confidence) / 2
    low, high = (typical * float(np.sqrt(df / stats.chi2.isf(q, df))) for q in (tail, 1 - tail))
    return TrainingNoise(pairs, typical, low, high, confidence)
