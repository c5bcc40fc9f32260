"""From per-image scores to the complete seed x prompt matrix that the analysis needs.

The analysed quantity is ``d`` of shape ``(S, P)``: the score of arm *on* minus that of arm *off*
for training seed ``s`` and prompt ``p``, averaged over the images of that cell. A value that is
not finite is missing. Missing values leave as pairs, are counted, and are never imputed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """The complete rectangle left after missing runs and incomplete prompts are dropped.

    Attributes:
        values: Finite paired differences, shape ``(seeds.sum(), prompts.sum())``, score units.
        seeds: Which of the S input rows were kept, shape ``(S,)``.
        prompts: Which of the P input columns were kept, shape ``(P,)``.
        n_missing: Missing cells of the input, those of wholly missing runs included.
    """

    values: FloatArray
    seeds: NDArray[np.bool_]
    prompts: NDArray[np.bool_]
    n_missing: int


def complete_cells(d: ArrayLike) -> Cells:
    """Drop wholly missing seeds, then every prompt that still has a missing cell.

    The crossed mean squares are independent only in a balanced layout, so an incomplete prompt
    goes as a whole. That is harmless only while little is missing (prompts that fail are rarely a
    random sample), which is why :func:`bench.stats.verdict` refuses above 1 %.

    Args:
        d: Paired differences, shape ``(S, P)``; any non-finite value is a missing cell.

    Returns:
        The complete cells and what was dropped.

    Raises:
        ValueError: If ``d`` is not two-dimensional, or fewer than 2 prompts or no seed remain.
    """
    matrix = np.array(d, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(
            f"expected paired differences of shape (seeds, prompts), got shape {matrix.shape}; "
            "average images with paired_differences, and write one run as d[None, :]"
        )
    present = np.isfinite(matrix)
    seeds = np.asarray(present.any(axis=1))
    prompts = np.asarray(present[seeds].all(axis=0))
    if not seeds.any() or prompts.sum() < 2:
        raise ValueError(
            f"expected at least 1 seed and 2 prompts with complete cells, got {seeds.sum()} and "
            f"{prompts.sum() if seeds.any() else 0} of shape {matrix.shape}; rerun the failed "
            "pairs or leave the failing seed out"
        )
    n_missing = int(matrix.size - present.sum())
    return Cells(matrix[np.ix_(seeds, prompts)], seeds, prompts, n_missing)


def image_differences(on: ArrayLike, off: ArrayLike) -> FloatArray:
    """Subtract paired scores; NaN where either side is not finite.

    Args:
        on: Scores with the component, shape ``(S, P)`` or ``(S, P, K)`` for K images per prompt.
        off: Scores without it, same shape: same seeds, prompts and initial noises.

    Returns:
        ``on - off``, same shape.

    Raises:
        ValueError: If the shapes differ or are neither two- nor three-dimensional.
    """
    a, b = np.array(on, dtype=np.float64), np.array(off, dtype=np.float64)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ValueError(
            "expected paired scores of equal shape (seeds, prompts) or (seeds, prompts, images), "
            f"got {a.shape} and {b.shape}; align both arms on the same keys, with NaN for a "
            "missing image"
        )
    return np.where(np.isfinite(a), a, np.nan) - np.where(np.isfinite(b), b, np.nan)


def average_images(values: FloatArray) -> FloatArray:
    """Average per-image values within each cell, over the pairs that are there.

    Args:
        values: Shape ``(S, P)`` (returned as it is) or ``(S, P, K)``; NaN = missing pair.

    Returns:
        Shape ``(S, P)``; NaN only where all K pairs of the cell are missing.
    """
    if values.ndim == 2:
        return values
    present = np.isfinite(values)
    count = present.sum(axis=-1)
    total = np.where(present, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def paired_differences(on: ArrayLike, off: ArrayLike) -> FloatArray:
    """Average ``on - off`` over the images of each cell: the matrix every analysis here takes.

    Args:
        on: Scores with the component, shape ``(S, P)`` or ``(S, P, K)``.
        off: Scores without it, same shape.

    Returns:
        Shape ``(S, P)``, score units; NaN where a cell has no complete image pair.

    Raises:
        ValueError: If the shapes differ or are neither two- nor three-dimensional.
    """
    return average_images(image_differences(on, off))


def missing_share(values: ArrayLike) -> float:
    """Fraction of values that are not finite, in [0, 1]; any shape.

    Raises:
        ValueError: If there are no values at all.
    """
    array = np.array(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("expected at least one value, got none; pass the whole planned matrix")
    return float(1.0 - np.isfinite(array).mean())
