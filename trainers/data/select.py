"""Which rows of a source become pairs."""

import unicodedata
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainers.data.settings import DataSettings
from trainers.data.sources import Rows
from trainers.data.sources.base import describe_label
from trainers.errors import UserError
from trainers.seeds import numpy_generator

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Selected:
    """Rows that were chosen, in the order of the source, and why others were not."""

    rows: Indices
    ties: int
    """Ties that were dropped."""
    unlabelled: int
    """Rows that nobody judged."""


def select(rows: Rows, settings: DataSettings) -> Selected:
    """Choose rows; every draw is tied to a row, and does not depend on which others are there.

    Raises:
        UserError: If a label is illegal, or no row is left.
    """
    _check_labels(rows)
    ties = rows.labels == 0.5
    unlabelled = np.isnan(rows.labels)
    keep = ~unlabelled if settings.ties == "soft" else ~(unlabelled | ties)
    chosen = np.flatnonzero(keep)
    dropped = int(ties.sum()) if settings.ties == "drop" else 0
    if len(chosen) == 0:
        raise UserError(
            f"nothing to learn from: of {len(rows)} rows, {dropped} are ties and "
            f"{int(unlabelled.sum())} have no label"
        )
    limit = 1 if settings.dedup_prompts else settings.per_prompt
    if limit is not None:
        prompts = _groups(rows.prompts, normalised=settings.dedup_prompts)[chosen]
        draws = numpy_generator(settings.seed, "pairs of a prompt").random(len(rows))[chosen]
        chosen = chosen[_first_of_each(prompts, draws, limit)]
    if settings.subset is not None:
        draws = numpy_generator(settings.seed, "subset").random(len(rows))[chosen]
        count = _count(settings.subset, len(chosen))
        chosen = np.sort(chosen[np.argsort(draws, kind="stable")[:count]])
    return Selected(chosen.astype(np.int64), dropped, int(unlabelled.sum()))


def normalise(prompt: str) -> str:
    """A prompt without case, surplus white space and differences of Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _check_labels(rows: Rows) -> None:
    legal = np.isin(rows.labels, (0.0, 0.5, 1.0)) | np.isnan(rows.labels)
    if legal.all():
        return
    first, others = int(np.argmin(legal)), int((~legal).sum()) - 1
    raise UserError(
        f"{rows.place(first)}: label_0 must be 0, 0.5 or 1, got "
        f"{describe_label(float(rows.labels[first]))}"
        + (f", and {others} more such rows" if others else "")
        + ": correct them, or set has_label to false where nobody judged"
    )


def _groups(prompts: pa.ChunkedArray, normalised: bool) -> Indices:
    """A number for each row, equal where prompts are."""
    encoded = pc.dictionary_encode(prompts).combine_chunks()
    numbers = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    if not normalised:
        return numbers
    seen: dict[str, int] = {}
    merged = [seen.setdefault(normalise(p), len(seen)) for p in encoded.dictionary.to_pylist()]
    return np.array(merged, dtype=np.int64)[numbers]


def _first_of_each(groups: Indices, draws: NDArray[np.float64], limit: int) -> Indices:
    """Positions of the ``limit`` members of each group with the lowest draws, in order."""
    order = np.lexsort((draws, groups))
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return np.sort(order[place < limit])


def _count(subset: int | float, available: int) -> int:
    if isinstance(subset, float):
        return max(1, round(subset * available))
    if subset > available:
        raise UserError(f"subset: {subset} pairs are wanted, but there are {available}")
    return subset
