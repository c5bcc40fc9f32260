"""Agreement with the oracle, on rewards whose agreement is known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.cli import run
from bench.images.folder import image_name, write_index
from bench.mini.agree import DRAWN, agree, agreements, drawn_pairs, miniatures, sampled_pairs
from bench.rewards import REWARDS
from bench.rewards.base import Scores
from bench.rewards.oracle import Oracle
from bench.stats import wilson
from bench.world.scenes import draw_look, parse, render, scenes, split_of
from trainers.errors import UserError
from trainers.files import sha256_file


class Contrary(Oracle):
    """Prefers the other picture."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        return -super().score(images, prompts)


class Indifferent(Oracle):
    """Finds all pictures equal."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        return np.zeros(len(images), dtype=np.float32)


@pytest.mark.parametrize("kind", DRAWN)
def test_the_oracle_agrees_with_itself_and_its_contrary_never(kind: str) -> None:
    pairs = drawn_pairs(kind, 20, 0)
    assert {split_of(parse(caption)) for caption in pairs.captions} == {"test"}
    shares = [{row.truth: row.share for row in agree(r(), pairs)} for r in (Oracle, Contrary)]
    assert [share["score"] for share in shares] == [1.0, 0.0]
    assert shares[0]["craft"] == pytest.approx(1 - shares[1]["craft"])


def test_equals_of_a_reward_count_as_a_half_with_the_interval_of_all_pairs() -> None:
    for row in agree(Indifferent(), drawn_pairs("faults", 10, 0)):
        assert (row.share, row.pairs) == (0.5, 10)
        assert (row.low, row.high) == wilson(0.5, 10)


def test_pairs_depend_on_kind_and_seed_only() -> None:
    one, two, other = (drawn_pairs("faults", 4, seed) for seed in (0, 0, 1))
    assert one.captions == two.captions != other.captions
    np.testing.assert_array_equal(np.stack(one.images), np.stack(two.images))


def write_images(folder: Path, captions: Sequence[str], each: int) -> None:
    """Worn drawings of captions, as ``bench generate`` lays images out."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for caption in captions:
        for k in range(each):
            name = image_name(caption, k)
            scene = parse(caption) if caption.startswith("a ") else scenes("dev")[0]
            Image.fromarray(render(scene, draw_look(rng, 0.8))).save(folder / name)
            digest = sha256_file(folder / name)
            rows.append({"prompt": caption, "k": k, "file": name, "sha256": digest})
    write_index(folder, rows)


def test_images_of_a_folder_are_paired_within_their_prompt(tmp_path: Path) -> None:
    captions = [scene.caption for scene in scenes("dev")[:3]]
    write_images(tmp_path / "images", captions, 3)
    pairs = sampled_pairs(tmp_path / "images")
    assert pairs.captions == [caption for caption in sorted(captions) for _ in range(2)]
    assert next(row.share for row in agree(Oracle(), pairs)) == 1.0
    found = list(agreements(["oracle"], 5, 0, tmp_path / "images"))
    assert {(row.kind, row.pairs) for row in found} >= {("faults", 5), ("model images", 3)}


def test_a_folder_that_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    caption = scenes("dev")[0].caption
    write_images(tmp_path / "single", [caption], 1)
    write_images(tmp_path / "strange", ["hello"], 2)
    for name, message in (
        ("none", "no folder or parquet file"),
        ("single", "expected two images or more of a prompt"),
        ("strange", "expected a caption such as"),
    ):
        with pytest.raises(UserError, match=message):
            sampled_pairs(tmp_path / name)


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mini", "agree", "--rewards", "oracle", "--pairs", "6"]
    assert run(arguments) == 0
    assert "faults (6)" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["truth"], row["pairs"]) for row in rows] == [
        (kind, truth, 6) for kind in DRAWN for truth in ("score", "fit", "craft")
    ]


def test_miniatures_are_the_default_and_need_no_download() -> None:
    assert miniatures() == [name for name in REWARDS.names() if name.startswith("mini-")]


def test_shipped_miniatures_agree_with_the_oracle_more_often_than_chance() -> None:
    """Far below what they reach (docs/miniature.md), far above what untrained weights do."""
    pairs = drawn_pairs("attributes", 60, 3)
    for name in miniatures():
        truth = "craft" if name == "mini-aesthetic" else "score"
        found = {row.truth: row for row in agree(REWARDS.get(name)(), pairs)}
        assert found[truth].low > 0.5, name
