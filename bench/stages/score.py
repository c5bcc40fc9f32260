"""The stage that scores images by one reward.

All scores of one signature lie together in a pool of the store, by image and prompt: what has a
score in one image set is not scored again in another.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from bench.images.folder import SCORES
from bench.images.read import read_items
from bench.rewards.base import Reward
from bench.rewards.engine import (
    available_memory,
    make_reward,
    score_items,
    take_scores,
    write_scores,
)
from bench.rewards.kit.shared import Shared
from bench.spec.launch import Work
from bench.spec.model import Cost, Scoring
from bench.stages.base import Report, Stage
from bench.stages.generate import GenerateStage
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.files import as_json, sha256_text, write_text
from trainers.input.text import read_json

UNSCORED = "unscored.json"
"""Which images have no score, and why; only where there are some."""


@dataclass(frozen=True)
class ScoreStage(Stage):
    """The scores of one reward for one set of images."""

    kind: ClassVar[str] = "scores"
    work: ClassVar[Work] = "score"
    order: ClassVar[int] = 4
    logged: ClassVar[bool] = False
    reward: str
    signature: str
    images: GenerateStage
    scoring: Scoring
    """Execution only: what it changes about a score is in the signature."""
    turn: int = 0
    """Execution only: number of the model. Image sets are scored by one model before the next."""

    def key(self) -> dict[str, Any]:
        """See the base class."""
        return {"signature": self.signature}

    @property
    def units(self) -> int:
        """Scores."""
        return self.images.units

    @property
    def device(self) -> str:
        """See the base class."""
        return self.scoring.device

    def expected_seconds(self, cost: Cost) -> float:
        """See the base class."""
        return self.units * cost.score

    @property
    def needs(self) -> tuple[Stage, ...]:
        """See the base class."""
        return (self.images,)

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """See the base class."""
        images = self.images.output(store)
        pool = store.pool(self.kind) / f"{sha256_text(self.signature)[:16]}.parquet"
        score_images(images, self.reward, self.signature, self.scoring, folder, pool, report)


@cache
def _worker_shared() -> Shared:
    """What the scoring stages of a worker process share: models stay loaded between them."""
    return Shared()


@cache
def _worker_reward(name: str, settings: str) -> Reward:
    """A reward of a worker process: its files, gigabytes perhaps, are hashed once."""
    return make_reward(name, Scoring.model_validate_json(settings), _worker_shared())


def score_images(
    images: Path,
    name: str,
    signature: str,
    settings: Scoring,
    folder: Path,
    pool: Path,
    report: Report,
) -> None:
    """Score every image of an image set by one reward, but for what has a score in the pool.

    Args:
        images: Folder of the set, with its index.
        name: The reward.
        signature: What the reward's is expected to be.
        settings: How it runs.
        folder: Where the scores go.
        pool: File of all scores of the reward; of a score that several processes compute at once
            each keeps its own, which may differ by rounding.
        report: Told the number of images that are done.

    Raises:
        UserError: If the reward has another signature by now, or no image can be scored.
        Exception: Whatever the reward raises.
    """
    shared = _worker_shared()
    shared.memory = shared.loaded + available_memory(settings.device)
    reward = _worker_reward(name, settings.model_dump_json())
    if reward.signature != signature:
        raise UserError(
            f"reward {name!r} changed while the experiment ran: it was planned as {signature}, "
            f"and is now {reward.signature}; run the same command again"
        )
    items = read_items(images)
    take_scores(pool)
    scored = score_items(items, {name: reward}, pool, None, lambda _, count: report(count))
    write_scores(folder / SCORES, items, scored)
    for error in scored.failed.values():
        raise error
    if missing := scored.missing():
        if not scored.has_scored(name):
            raise UserError(f"no image can be scored, the first because of {missing[0]}")
        write_text(folder / UNSCORED, as_json(missing))


def unscored(stage: ScoreStage, store: Store) -> list[str]:
    """A line for each image that a stage which is done could not score."""
    path = stage.output(store) / UNSCORED
    return [f"{stage.label}: {line}" for line in read_json(path)] if path.is_file() else []
