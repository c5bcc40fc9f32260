"""Scores of an image set, whatever a reward gives back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from bench.images import image_name, write_index
from bench.rewards import REWARDS
from bench.rewards.base import Card, Reward, Scores
from bench.score import BATCH, score_images, score_rows
from bench.single import score_folder
from bench.spec import Generate
from bench.stages import GenerateStage, ScoreStage
from bench.store import Store
from trainers.errors import UserError
from trainers.files import sha256_file


class Red(Reward):
    """The red channel of the first pixel; none at 13, infinite at 14."""

    card = Card(
        name="red", scale="0-255", range=(0, 255), weights=(), preprocessing="none", text=None,
        trained_on=(), licence="none", origin="rule",
    )  # fmt: skip

    def load(self) -> None:
        """Nothing to read."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        assert len(images) == len(prompts) <= BATCH
        red = [float(np.asarray(image)[0, 0, 0]) for image in images]
        odd = {13.0: np.nan, 14.0: np.inf}
        return np.array([odd.get(value, value) for value in red], np.float32)


COUNT = BATCH + 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image set: the red of image ``n`` is ``n``."""
    rows = []
    for n in range(COUNT):
        path = tmp_path / image_name(f"p{n}", 0)
        Image.new("RGB", (4, 4), (n, 0, 0)).save(path)
        row = {"prompt": f"p{n}", "k": 0, "file": path.name, "sha256": sha256_file(path)}
        rows.append(row)
    write_index(tmp_path, rows)
    return tmp_path


def test_scores_keep_their_images_and_what_is_not_finite_is_null(folder: Path) -> None:
    rows = [
        {"prompt": f"p{n}", "k": n % 2, "file": image_name(f"p{n}", 0), "sha256": f"{n:064x}"}
        for n in reversed(range(COUNT))
    ]
    counts: list[int] = []
    table = score_rows(folder, rows, Red(), counts.append).to_pydict()
    assert table["prompt"] == [row["prompt"] for row in rows]
    assert table["k"] == [row["k"] for row in rows]
    assert table["image_sha256"] == [row["sha256"] for row in rows]
    expected = [None if n in (13, 14) else float(n) for n in reversed(range(COUNT))]
    assert table["score"] == expected
    assert counts == [BATCH, COUNT]


def test_a_reward_that_changed_since_the_plan_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(REWARDS._loaded, "red", Red)
    images = GenerateStage("i", Generate(), 0, (("a", "p0"),), "b", folder, "0" * 64, None)
    stage = ScoreStage("s", "red", "red|rule|another", images)
    with pytest.raises(UserError, match=r"reward 'red' changed .* planned as red\|rule\|another"):
        score_images(stage, tmp_path, Store(tmp_path), lambda _: None)


def test_a_folder_is_scored_with_a_signature(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(REWARDS._loaded, "red", Red)
    score_folder(folder, ["red"], Console())
    table = pq.read_table(folder / "scores.parquet")
    assert set(table["signature"].to_pylist()) == {Red().signature}
    assert table["score"].null_count == 2
    shown = capsys.readouterr().out
    values = [n for n in range(COUNT) if n not in (13, 14)]
    assert f"{np.mean(values):.4f}" in shown


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no images\.jsonl"):
        score_folder(tmp_path, ["oracle"], Console(quiet=True))


def test_every_reward_is_known_before_anything_is_scored(folder: Path) -> None:
    with pytest.raises(UserError, match=r"unknown reward 'oracel': did you mean 'oracle'\?"):
        score_folder(folder, ["oracle", "oracel"], Console(quiet=True))
    assert not (folder / "scores.parquet").exists()
