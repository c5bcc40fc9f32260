"""``bench score`` and ``bench prefetch`` as their users call them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.cli import run
from bench.rewards import GROUPS, REWARDS, expand
from bench.rewards.base import Card, Reward, Scores
from bench.world.scenes import draw_look, render, scenes
from trainers.errors import UserError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n, scene in enumerate(scenes("test")[:3]):
        Image.fromarray(render(scene, draw_look(rng))).save(tmp_path / f"{n}.png")
    captions = [scene.caption for scene in scenes("test")[:3]]
    (tmp_path / "prompts.txt").write_text("\n".join(captions))
    return tmp_path


def test_any_folder_is_scored_with_a_summary_and_the_scores_of_single_images(
    pictures: Path, capsys: Capture
) -> None:
    prompts = str(pictures / "prompts.txt")
    assert run(["score", str(pictures), "--prompts", prompts, "--rewards", "mini"]) == 0
    shown = capsys.readouterr().out
    assert "3 images, 3 prompts" in shown
    rows = pq.read_table(pictures / "scores.parquet").to_pylist()
    oracle = [row["score"] for row in rows if row["reward"] == "oracle"]
    assert f"{np.mean(oracle):.4f}" in shown
    assert {row["reward"] for row in rows} >= {"oracle", "mini-clip", "mini-pickscore"}


def test_what_is_missing_is_shown_and_the_rest_is_kept(pictures: Path, capsys: Capture) -> None:
    prompts = str(pictures / "prompts.txt")
    (pictures / "3.png").write_bytes(b"no image")
    with (pictures / "prompts.txt").open("a") as file:
        file.write("\na fourth caption")
    command = ["score", str(pictures), "--prompts", prompts, "--rewards", "mini-clip,clip"]
    assert run([*command, "--json"]) == 2
    summary = json.loads(capsys.readouterr().out)
    mini, official = summary["rewards"]
    assert (mini["scored"], mini["missing"], mini["failed"]) == (3, 1, None)
    assert (official["scored"], official["mean"], official["signature"]) == (0, None, None)
    assert "openai/clip-vit-large-patch14" in official["failed"]
    assert "3.png: expected an image" in summary["unread"][0]
    assert run(command) == 2
    shown = capsys.readouterr().out
    assert "mini-clip: 1 scores are missing or not finite" in shown
    assert "clip: expected config.json of openai/clip-vit-large-patch14" in shown


def test_a_parquet_file_is_scored_beside_itself(pictures: Path, capsys: Capture) -> None:
    captions = (pictures / "prompts.txt").read_text().splitlines()
    images = [(pictures / f"{n}.png").read_bytes() for n in range(3)]
    path = pictures / "set.parquet"
    pq.write_table(pa.table({"image": images, "prompt": captions}), path)
    assert run(["score", str(path), "--rewards", "oracle", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["scores"] == str(pictures / "set-scores.parquet")
    assert pq.read_table(pictures / "set-scores.parquet").num_rows == 3


def test_prefetch_verifies_and_names_what_is_not_there(capsys: Capture) -> None:
    assert run(["prefetch", "--rewards", "mini-clip", "--offline"]) == 0
    assert "mini-clip: model.safetensors" in capsys.readouterr().out
    assert run(["prefetch", "--rewards", "hpsv2.1,mini-clip", "--offline"]) == 1
    shown = capsys.readouterr().out
    assert "HF_HUB_OFFLINE forbids a download" in shown
    assert "mini-clip: model.safetensors" in shown


def test_groups_are_spelt_out_once() -> None:
    assert expand(["hpsv2.1", "hpsv2"]) == ("hpsv2.1", "hpsv2.0")
    every = [name for group in GROUPS.values() for name in group]
    assert set(expand(list(GROUPS))) == set(every)
    with pytest.raises(UserError, match="unknown reward 'hpsv3'"):
        expand(["all", "hpsv3"])


class Constant(Reward):
    value = 1.0

    def load(self) -> None:
        """Nothing to read."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        return np.full(len(images), self.value, np.float32)


@pytest.mark.parametrize(("gap", "told"), [(0.25, "differ by at most 2.5e-01"), (None, "no image")])
def test_a_reward_beside_its_published_package_shows_how_far_they_are_apart(
    pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, gap: float | None, told: str
) -> None:
    for name, value in (("ours", 1.0), ("ours-official", 1.0 + (gap or np.nan))):
        card = Card(
            name=name, scale="none", range=(0, 2), weights=(), preprocessing="none", text=None,
            trained_on=(), licence="none", origin="rule",
        )  # fmt: skip
        kind = type(name, (Constant,), {"card": card, "value": value})
        monkeypatch.setitem(REWARDS._loaded, name, kind)
    prompts = str(pictures / "prompts.txt")
    command = ["score", str(pictures), "--prompts", prompts, "--rewards", "ours,ours-official"]
    assert run(command) == (2 if gap is None else 0)
    assert f"ours and ours-official: {told}" in capsys.readouterr().out.replace("they ", "")
