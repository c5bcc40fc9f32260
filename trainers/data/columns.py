"""Further numbers of pairs: how a run calls them, and the labels that scores among them make.

A source has them of a row. Two that are called ``NAME_0`` and ``NAME_1`` belong to its images; a
run calls them ``NAME_winner`` and ``NAME_loser``, whichever image that is.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainers.data.settings import DataSettings
from trainers.data.sources import Rows
from trainers.errors import UserError
from trainers.seeds import numpy_generator

Columns: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Numbers by name, one of each pair."""
SCORES = ("score_0", "score_1")
"""As ``bench data label`` writes them."""
SIDES = ("winner", "loser")


def preferences(
    rows: NDArray[np.int64], labels: NDArray[np.float64], columns: Columns, settings: DataSettings
) -> NDArray[np.float64]:
    """Probability that image 0 of each pair is preferred: its label, or by its scores.

    Args:
        rows: Of the source, which the draws of ``label_noise`` are tied to.
        labels: Of each pair, in [0, 1].
        columns: Numbers of each pair.
        settings: What is made of them.

    Returns:
        By its scores ``sigmoid((score_0 - score_1) / temperature)``, the model of Bradley and
        Terry, as a softmax over both scores has it.
    """
    if settings.labels == "probability":
        first, second = (columns[name] for name in SCORES)
        with np.errstate(over="ignore"):  # To 0 or 1, as it must.
            labels = 1 / (1 + np.exp((second - first) / settings.temperature))
    turned = np.full(len(rows), settings.swap_labels)
    if settings.label_noise:
        draws = numpy_generator(settings.seed, "label noise").random(int(rows.max(initial=0)) + 1)
        turned ^= draws[rows] < settings.label_noise
    return np.where(turned, 1 - labels, labels)


def of_sides(columns: Columns, winner: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Columns as a run calls them, given which image of each pair is preferred, 0 or 1."""
    found = dict(columns)
    for name in columns:
        stem = name.removesuffix("_0")
        if stem != name and (other := f"{stem}_1") in columns:
            both = np.stack([found.pop(name), found.pop(other)])
            for side, image in zip(SIDES, (winner, 1 - winner), strict=True):
                found[f"{stem}_{side}"] = both[image, np.arange(len(winner))]
    return found


def require_columns(
    rows: Rows, chosen: NDArray[np.int64], names: Iterable[str], settings: DataSettings
) -> None:
    """Refuse a source that lacks numbers which a run looks at.

    Args:
        rows: The source.
        chosen: Its rows that are used.
        names: What the objective asks for, as a run calls it.
        settings: Which may ask for scores.

    Raises:
        UserError: With the names of what is missing, or the first row where one is not finite.
    """
    wanted = [*(SCORES if settings.labels == "probability" else ())]
    for name in names:
        stem, _, side = name.rpartition("_")
        wanted += [f"{stem}_0", f"{stem}_1"] if stem and side in SIDES else [name]
    if missing := [name for name in wanted if name not in rows.columns]:
        raise UserError(
            f"expected numbers {', '.join(missing)} of every pair, and the data have "
            f"{', '.join(rows.columns) or 'none'}: add columns of floating-point numbers to a "
            "parquet file; bench data label writes scores"
        )
    for name in dict.fromkeys(wanted):
        finite = np.isfinite(rows.columns[name][chosen])
        if not finite.all():
            row = int(chosen[np.argmin(finite)])
            raise UserError(
                f"{rows.place(row)}: expected a finite {name}, got {rows.columns[name][row]}, and "
                f"{int((~finite).sum()) - 1} more such rows: set has_label to false there"
            )
