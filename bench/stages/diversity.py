"""The stage that measures how different the images of a prompt are. It needs no model.

A row for each image, as rewards have them, so that tables, tests and figures treat it as a score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from bench.images.folder import SCORES
from bench.images.read import Item, read_items
from bench.rewards.base import Card
from bench.rewards.engine import SCHEMA
from bench.stages.base import Report
from bench.stages.score import ScoreStage
from bench.stages.store import Store
from trainers.files import canonical_json, sha256_text, write_atomically
from trainers.input.image import to_rgb

SIDE = 64
CARD = Card(
    name="diversity",
    scale="root mean square",
    range=(0.0, 1.0),
    weights=(),
    preprocessing=f"RGB in [0, 1], brought to {SIDE}x{SIDE} by area; the mean distance from the "
    "other images of the prompt",
    text=None,
    dtype="float64",
    trained_on=(),
    answers="How different are the images that a model makes of one prompt? It sees pixels alone, "
    "and says nothing of how good they are.",
    licence="as the project",
    origin="rule",
)
_DECIDES = CARD.model_dump(mode="json", include={"preprocessing", "version"})
SIGNATURE = "|".join(
    [CARD.name, CARD.origin, CARD.scale, CARD.dtype, sha256_text(canonical_json(_DECIDES))[:12]]
)


@dataclass(frozen=True)
class DiversityStage(ScoreStage):
    """Distance of each image of a set from the others of its prompt."""

    kind: ClassVar[str] = "diversity"

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        items = sorted(read_items(self.images.output(store)), key=lambda item: item.prompt)
        scores: list[float] = []
        for _, group in groupby(items, key=lambda item: item.prompt):
            scores += distances([_pixels(item) for item in group]).tolist()
            report(len(scores))
        columns = {
            "prompt": [item.prompt for item in items],
            "k": [item.k for item in items],
            "image_sha256": [item.sha256 for item in items],
            "reward": [self.reward] * len(items),
            "signature": [self.signature] * len(items),
            "score": scores,
            "file": [item.name for item in items],
        }
        write_atomically(folder / SCORES, partial(pq.write_table, pa.table(columns, SCHEMA)))


def _pixels(item: Item) -> NDArray[np.float64]:
    image = to_rgb(item.open()).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64) / 255


def distances(images: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean root mean square difference of each image from each other one, ``[n]``.

    Args:
        images: Two or more of one shape, values in [0, 1].
    """
    stacked = np.stack(images).reshape(len(images), -1)
    apart = np.sqrt(np.square(stacked[:, None] - stacked[None]).mean(-1))
    found: NDArray[np.float64] = apart.sum(1) / (len(images) - 1)
    return found
