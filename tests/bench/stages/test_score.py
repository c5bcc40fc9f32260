"""The body of a scoring stage: one reward, one image set, one worker's models."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.images.folder import SCORES, image_name, write_index
from bench.rewards import REWARDS
from bench.rewards.base import Card, Reward, Scores
from bench.spec.model import Scoring
from bench.stages.score import UNSCORED, score_images
from trainers.errors import UserError
from trainers.files import sha256_file

COUNT = 5
SCORED = 3
POOL = "pool.parquet"


def ignore(_: int) -> None:
    """A report nobody reads."""


class Red(Reward):
    """The red channel of the first pixel; fails if it is told to at an image that is too red."""

    card = Card(
        name="red", scale="0-255", range=(0, 255), weights=(), preprocessing="none", text=None,
        trained_on=(), licence="none", origin="rule",
    )  # fmt: skip
    limit = 255.0

    def load(self) -> None:
        """Nothing to read."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        red = np.array([np.asarray(image)[0, 0, 0] for image in images], np.float32)
        if red.max() > self.limit:
            raise ValueError("no such pixel")
        return red


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """An image set: the red of image ``n`` is ``n``."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for n in range(COUNT):
        path = folder / image_name(f"p{n}", 0)
        Image.new("RGB", (4, 4), (n, 0, 0)).save(path)
        row = {"prompt": f"p{n}", "k": 0, "file": path.name, "sha256": sha256_file(path)}
        rows.append(row)
    write_index(folder, rows)
    return folder


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, type[Reward]], str]:
    """Register a reward for a test; gives its signature."""

    def add(name: str, kind: type[Reward]) -> str:
        monkeypatch.setitem(REWARDS._loaded, name, kind)
        return kind().signature

    return add


def scores(folder: Path) -> list[Any]:
    found: list[Any] = pq.read_table(folder / SCORES)["score"].to_pylist()
    return found


def test_every_image_is_scored_and_told(
    images: Path, register: Callable[[str, type[Reward]], str], tmp_path: Path
) -> None:
    signature, counts = register("red", Red), []
    score_images(images, "red", signature, Scoring(), tmp_path, tmp_path / POOL, counts.append)
    assert scores(tmp_path) == list(range(COUNT))
    assert counts == [COUNT]


def test_a_reward_that_changed_since_the_plan_is_refused(
    images: Path, register: Callable[[str, type[Reward]], str], tmp_path: Path
) -> None:
    register("changed", Red)
    with pytest.raises(UserError, match=r"reward 'changed' .* planned as red\|rule\|another"):
        score_images(
            images, "changed", "red|rule|another", Scoring(), tmp_path, tmp_path / POOL, ignore
        )
    assert not (tmp_path / SCORES).exists()
    assert not (tmp_path / POOL).exists()


def test_an_image_that_a_reward_fails_at_is_missing_and_named(
    images: Path,
    register: Callable[[str, type[Reward]], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    class Failing(Red):
        limit = SCORED - 1.0

    monkeypatch.setattr("bench.rewards.engine.CHUNK", SCORED)
    signature = register("failing", Failing)
    score_images(images, "failing", signature, Scoring(), tmp_path, tmp_path / POOL, ignore)
    assert scores(tmp_path) == [*range(SCORED), *[None] * (COUNT - SCORED)]
    told = json.loads((tmp_path / UNSCORED).read_text())
    assert told == [
        f"{image_name(f'p{n}', 0)}: failing: ValueError: no such pixel"
        for n in range(SCORED, COUNT)
    ]


def test_a_stage_fails_if_its_reward_fails_at_all(
    images: Path, register: Callable[[str, type[Reward]], str], tmp_path: Path
) -> None:
    class Hopeless(Red):
        limit = -1.0

    signature = register("hopeless", Hopeless)
    with pytest.raises(ValueError, match="no such pixel"):
        score_images(images, "hopeless", signature, Scoring(), tmp_path, tmp_path / POOL, ignore)
    assert scores(tmp_path) == [None] * COUNT


def test_stages_of_a_worker_share_a_reward_and_with_it_the_hashes_of_its_files(
    images: Path, register: Callable[[str, type[Reward]], str], tmp_path: Path
) -> None:
    made: list[int] = []

    class Counted(Red):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(1)

    signature = register("counted", Counted)
    made.clear()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        out = tmp_path / name
        score_images(images, "counted", signature, Scoring(), out, out / POOL, ignore)
    assert made == [1]


def change(path: Path) -> None:
    """A valid file with another score in it."""
    table = pq.read_table(path)
    column = pa.array([9.0] * len(table), pa.float32())
    pq.write_table(table.set_column(table.column_names.index("score"), "score", column), path)


@pytest.mark.parametrize(
    "damage",
    [
        change,
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
)
def test_scores_that_were_not_written_there_are_made_again_and_told(
    images: Path,
    register: Callable[[str, type[Reward]], str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
) -> None:
    signature, pool = register("red", Red), tmp_path / POOL
    score_images(images, "red", signature, Scoring(), tmp_path, pool, ignore)
    damage(pool)
    score_images(images, "red", signature, Scoring(), tmp_path, pool, ignore)
    assert scores(tmp_path) == list(range(COUNT))
    assert capfd.readouterr().err.count(f"{pool} is not what was written there") == 1
    assert pq.read_table(pool)["score"].to_pylist() == list(range(COUNT))
