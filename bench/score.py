"""Scores of image sets: one row per image and reward."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.images import read_index
from bench.rewards import REWARDS
from trainers.errors import UserError
from trainers.files import write_atomically

if TYPE_CHECKING:
    from bench.rewards.base import Reward
    from bench.stages import Report, ScoreStage
    from bench.store import Store

BATCH = 32
SCORES = "scores.parquet"


def score_rows(
    folder: Path, rows: list[dict[str, Any]], reward: "Reward", report: "Report"
) -> pa.Table:
    """Score the images of an index with a loaded reward.

    Returns:
        Columns prompt, k, image_sha256 and score, which is null where it is not finite.
    """
    scores: list[float] = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        images = [_open(folder / row["file"]) for row in part]
        scores += reward.score(images, [row["prompt"] for row in part]).tolist()
        report(len(scores))
    return pa.table(
        {
            "prompt": [row["prompt"] for row in rows],
            "k": pa.array([row["k"] for row in rows], pa.int32()),
            "image_sha256": [row["sha256"] for row in rows],
            "score": pa.array([s if np.isfinite(s) else None for s in scores], pa.float32()),
        }
    )


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def score_images(stage: "ScoreStage", folder: Path, store: "Store", report: "Report") -> None:
    """Score every image of a stage's image set.

    Raises:
        UserError: If the reward is no longer the one that the stage was planned with.
    """
    source = stage.images.output(store)
    reward = REWARDS.get(stage.reward)()
    if reward.signature != stage.signature:
        raise UserError(
            f"reward {stage.reward!r} changed while the experiment ran: it was planned as "
            f"{stage.signature}, and is now {reward.signature}; run the same command again"
        )
    reward.load()
    table = score_rows(source, read_index(source), reward, report)
    write_atomically(folder / SCORES, lambda part: pq.write_table(table, part))
