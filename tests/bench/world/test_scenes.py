"""The world: captions, splits and the renderer; and the oracle that reads it back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.world import oracle
from bench.world.scenes import (
    CLEAN,
    WORDS,
    Look,
    Scene,
    all_scenes,
    draw_look,
    mislabel,
    parse,
    render,
    scenes,
    signed_distance,
    split_of,
)

SCENE = Scene("large", "red", "circle", "left", "white")


def test_every_caption_is_read_back_as_its_scene() -> None:
    assert all(parse(scene.caption) == scene for scene in all_scenes())
    assert len({scene.caption for scene in all_scenes()}) == 2100


@pytest.mark.parametrize(
    "caption", ["", "a red circle", "a small red circle and a large blue square at the left", "x"]
)
def test_a_caption_of_another_world_is_refused(caption: str) -> None:
    with pytest.raises(ValueError, match="expected a caption such as"):
        parse(caption)


def test_splits_are_disjoint_and_every_word_occurs_in_each() -> None:
    parts = {name: set(scenes(name)) for name in ("train", "dev", "test")}
    assert sum(len(part) for part in parts.values()) == 2100
    for part in parts.values():
        for name, words in WORDS.items():
            assert {getattr(scene, name) for scene in part} == set(words)
    assert split_of(SCENE) == split_of(Scene(**SCENE.__dict__))


def test_the_oracle_reads_every_clean_scene_correctly() -> None:
    wrong = [s for s in all_scenes()[::7] if oracle.read(render(s)).scene != s]
    assert wrong == []


def test_a_clean_picture_scores_near_one_and_a_wrong_word_costs_its_weight() -> None:
    picture = render(SCENE)
    right = oracle.judge(picture, SCENE)
    assert right.score > 0.97
    for name, weight in oracle.FIT_WEIGHTS.items():
        other = next(w for w in WORDS[name] if w != getattr(SCENE, name))
        wrong = oracle.judge(picture, replace(SCENE, **{name: other}))
        lost = (right.score - wrong.score) / (1 - oracle.CRAFT_SHARE)
        # Neighbouring colours and shapes earn part of the credit, so at most the whole weight.
        assert 0.3 * weight < lost <= weight + 1e-9
        assert wrong.craft == right.craft


@pytest.mark.parametrize(
    "fault",
    [
        Look(softness=0.8),
        Look(fade=0.5),
        Look(light=0.3),
        Look(clutter=((50.0, 10.0, 3.0, 2), (55.0, 55.0, 3.0, 3), (50.0, 30.0, 3.0, 1))),
    ],
)
def test_each_fault_costs_craft(fault: Look) -> None:
    clean, faulty = (oracle.judge(render(SCENE, look), SCENE) for look in (CLEAN, fault))
    assert faulty.craft < clean.craft - 0.03
    assert faulty.score < clean.score


def test_an_empty_picture_has_no_object() -> None:
    empty = np.full((64, 64, 3), 248, dtype=np.uint8)
    seen = oracle.judge(empty, SCENE)
    assert oracle.read(empty).scene is None
    assert seen.craft == 0
    assert seen.attributes["background"] > 0.9
    assert all(seen.attributes[n] == 0 for n in ("colour", "shape", "place", "size"))


@pytest.mark.parametrize("bad", [np.zeros((32, 32, 3), np.uint8), np.zeros((64, 64, 3))])
def test_another_kind_of_image_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a uint8 image"):
        oracle.read(bad)


@given(st.binary(min_size=12, max_size=12))
@settings(max_examples=20, deadline=None)
def test_scores_stay_in_range_on_any_picture(noise: bytes) -> None:
    rng = np.random.default_rng(int.from_bytes(noise, "big"))
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = oracle.judge(picture, SCENE)
    assert 0 <= seen.score <= 1
    assert 0 <= seen.fit <= 1 + 1e-9
    assert 0 <= seen.craft <= 1


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi),
        ("square", 4.0),
        ("diamond", 2.0),
        ("triangle", 2.0),  # base 2 r, height 2 r
        ("cross", 2 * 2 * 0.72 - 0.72**2),  # two bars of 2 r by 0.72 r less their common square
        ("ring", np.pi * (1 - 0.52**2)),  # between 0.52 r and r
    ],
)
def test_shapes_have_the_areas_of_geometry(shape: str, area: float) -> None:
    """Areas in units of r^2; pixels on the edge count by the part that is covered."""
    r = 15.0
    covered = np.clip(0.5 - signed_distance(shape, 32, 32, r), 0, 1).sum()
    assert covered == pytest.approx(area * r * r, rel=0.02)


def test_looks_and_mislabels_come_from_the_generator_alone() -> None:
    a, b = (draw_look(np.random.default_rng(5)) for _ in range(2))
    assert a == b
    told = mislabel(SCENE, np.random.default_rng(1))
    differing = [n for n in WORDS if getattr(told, n) != getattr(SCENE, n)]
    assert len(differing) == 1
