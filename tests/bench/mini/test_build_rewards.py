"""What the miniature rewards are trained on: pictures, people, and two steps of every stage."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.assets import model_folder
from bench.mini.build.rewards import people
from bench.mini.build.rewards.blip import PLACES
from bench.mini.build.rewards.data import (
    INDEX,
    SCENES,
    Data,
    draw_batch,
    draw_groups,
    read_groups,
    wrong,
)
from bench.mini.build.rewards.losses import contrastive_loss
from bench.mini.build.rewards.train import NAMES, RewardSteps, finished, train_rewards
from bench.mini.build.tokenizer import new_tokenizer
from bench.rewards import REWARDS
from bench.rewards.kit.weights import LISTING
from bench.world.scenes import CLEAN, WORDS, all_scenes, render, scenes, split_of
from trainers.files import tree_hashes


def test_every_scene_has_a_wrong_one_and_training_scenes_a_training_one() -> None:
    """Some held-out scenes have no neighbour in their own split; the search must still end."""
    rng = np.random.default_rng(0)
    for scene in all_scenes():
        other = wrong(scene, rng)
        assert sum(getattr(other, n) != getattr(scene, n) for n in WORDS) == 1
        if split_of(scene) == "train":
            assert split_of(other) == "train"


def clean(picture_of: list[int]) -> Tensor:
    """Clean drawings of training scenes, ``uint8[n, 3, 64, 64]``."""
    views = [render(scenes("train")[i], CLEAN) for i in picture_of]
    return torch.from_numpy(np.stack(views)).movedim(-1, 1)


def test_sampled_pictures_are_judged_under_their_own_caption() -> None:
    groups = read_groups(clean([0, 0, 1, 900]).unflatten(0, (2, 2)))
    told = [INDEX[scenes("train")[i]] for i in (0, 1)]
    assert groups["told"].tolist() == told
    assert groups["shown"].tolist() == [[told[0]] * 2, [told[1], INDEX[scenes("train")[900]]]]
    assert (groups["craft"] > 0.9).all()
    assert groups["score"][1, 0] > 0.9 > groups["score"][1, 1]


def test_a_picture_without_an_object_is_described_by_its_caption() -> None:
    empty = torch.full((1, 2, 3, 64, 64), 200, dtype=torch.uint8)
    groups = read_groups(empty)
    assert groups["shown"].tolist() == [[INDEX[scenes("train")[0]]] * 2]


def test_mirrored_groups_are_what_the_mirrored_captions_say() -> None:
    """A clean drawing in a mirror is the clean drawing of the mirrored scene."""
    data = read_groups(clean([*range(0, 1500, 25)]).unflatten(0, (-1, 1)))
    data["shown"] = INDEX_OF_TRAIN[list(range(0, 1500, 25))][:, None]
    data["told"] = data["shown"][:, 0]
    batch = draw_batch(data, 64, np.random.default_rng(0))
    original = {tuple(p.flatten().tolist()) for p in data["pictures"][:, 0]}
    moved = 0
    for told, shown, picture in zip(
        batch["told"], batch["shown"][:, 0], batch["pictures"][:, 0], strict=True
    ):
        assert told == shown
        drawn = torch.from_numpy(render(SCENES[int(shown)], CLEAN)).movedim(-1, 0)
        assert torch.equal(drawn, picture)
        assert split_of(SCENES[int(told)]) == "train"
        moved += tuple(picture.flatten().tolist()) not in original
    assert moved > 5


INDEX_OF_TRAIN = torch.tensor([INDEX[scene] for scene in scenes("train")])


def test_held_out_scenes_are_never_named() -> None:
    data = draw_groups("test", 8, 2, 0.0, np.random.default_rng(0))
    mixed = draw_groups("train", 8, 2, 0.0, np.random.default_rng(0))
    mixed["shown"][:, 1] = data["shown"][:, 1]
    batch = draw_batch(mixed, 16, np.random.default_rng(1))
    assert not batch["named"].all()
    for shown, named in zip(batch["shown"].flatten(), batch["named"].flatten(), strict=True):
        assert named == (split_of(SCENES[int(shown)]) == "train")


@pytest.mark.parametrize("misnamed", [people.CAREFUL, people.CARELESS])
def test_descriptions_go_wrong_at_the_stated_rates(misnamed: tuple[float, float]) -> None:
    rng, count = np.random.default_rng(0), 2_000
    shown = INDEX_OF_TRAIN[:1].expand(count)
    for craft, rate in zip((1.0, 0.0), misnamed, strict=True):
        told = people.describe(shown, torch.full((count,), craft), misnamed, rng)
        missed = sum(scene != SCENES[int(shown[0])] for scene in told) / count
        assert abs(missed - rate) < 4 * np.sqrt(rate * (1 - rate) / count)


def test_rankings_of_two_are_choices_by_bradley_and_terry_with_slips() -> None:
    gap, count = 0.05, 20_000
    score = torch.tensor([[0.5 + gap, 0.5]])
    first = people.rank(score, count, np.random.default_rng(0))[0, :, 0, 1].float().mean()
    chosen = 1 / (1 + np.exp(-gap / people.TEMPERATURE))
    expected = people.SLIPS + (1 - 2 * people.SLIPS) * chosen
    assert abs(float(first) - expected) < 4 * np.sqrt(0.25 / count)


def test_a_ranking_is_an_order() -> None:
    score = torch.from_numpy(np.random.default_rng(0).random((5, 4)))
    above = people.rank(score, 3, np.random.default_rng(1))
    assert above.shape == (5, 3, 4, 4)
    places = above.sum(-1).flatten(0, 1)
    assert all(sorted(row) == [0, 1, 2, 3] for row in places.tolist())


def test_ratings_stay_on_their_scale_and_follow_craft() -> None:
    rng = np.random.default_rng(0)
    means = [float(people.rate(torch.full((2_000,), c), rng).mean()) for c in (0.1, 0.5, 0.9)]
    np.testing.assert_allclose(means, [1.9, 5.5, 9.1], atol=0.15)
    assert people.rate(torch.ones(100), rng).max() <= 10


def test_the_contrastive_loss_takes_no_equal_caption_for_a_negative() -> None:
    """Two images of one caption: with the pair masked only the third can be confused."""
    images = torch.eye(3)
    texts = torch.cat([images[:1], images[:1], images[2:], images[1:2]])
    captions = torch.tensor([7, 7, 8, 9])
    found = contrastive_loss(images, texts, captions, torch.tensor(2.0))
    rows = [  # own logit against the allowed others
        np.log(1 + 2 * np.exp(-2.0)),  # 2 against 0, 0
        np.log(2 + np.exp(2.0)),  # 0 against 0, 2 (the extra text equals this image)
        np.log(1 + 3 * np.exp(-2.0)),  # 2 against 0, 0, 0
    ]
    columns = [np.log(1 + np.exp(-2.0)), np.log(2.0), np.log(1 + 2 * np.exp(-2.0))]
    assert float(found) == pytest.approx((np.mean(rows) + np.mean(columns)) / 2, abs=1e-6)


def test_the_words_of_a_caption_stand_where_blip_looks_for_them() -> None:
    tokenizer = new_tokenizer()
    for scene in all_scenes()[::97]:
        ids = tokenizer(scene.caption).input_ids
        assert [tokenizer.decode([ids[i]]).strip() for i in PLACES] == [
            getattr(scene, name) for name in WORDS
        ]


def test_two_steps_of_each_stage_make_rewards_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = RewardSteps(**{field.name: 2 for field in fields(RewardSteps)})

    def few(*arguments: object) -> tuple[Data, Data]:
        data = draw_groups("train", 6, 4, 0.5, np.random.default_rng(0))
        return data, data

    monkeypatch.setattr("bench.mini.build.rewards.train.training_set", few)
    lines: list[str] = []
    out, base = tmp_path / "rewards", model_folder("mini-sd")
    assert not finished(out)
    train_rewards(out, tmp_path / "work", base, 0, tiny, lines.append)
    assert finished(out)
    made = tree_hashes(out)
    told = scenes("dev")[:2]
    images = [Image.fromarray(render(scene)) for scene in told]
    for name in NAMES:
        reward = REWARDS.get(f"mini-{name}")(weights=out / name)
        assert np.isfinite(reward.score(images, [scene.caption for scene in told])).all()
    (out / NAMES[0] / LISTING).unlink()
    assert not finished(out)
    train_rewards(out, tmp_path / "work", base, 0, tiny, lines.append)
    assert tree_hashes(out) == made  # resumed from its checkpoints, bit for bit
