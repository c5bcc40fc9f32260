"""What is known of each kind of stage: its place in the pipeline, and what it costs."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.experiment.prepare import prepare
from bench.spec.model import Cost, parse_spec
from bench.stages.base import Stage, identify

COST = Cost(pair=1, image=100, score=10_000, start=1)
"""Powers of a hundred tell whose units a sum is made of."""


@pytest.fixture(scope="module")
def stages(tiny_experiment: Callable[[], dict[str, Any]]) -> dict[str, Stage]:
    """One of each kind: 4 steps of 4 pairs, 6 prompts, 1842 pairs to encode."""
    found = prepare(parse_spec(tiny_experiment(), "tiny")).stages()
    return {stage.kind: stage for stage in reversed(found)}


def test_every_stage_comes_after_those_it_needs(stages: dict[str, Stage]) -> None:
    in_order = sorted(stages.values(), key=lambda stage: stage.order)
    assert [stage.kind for stage in in_order] == ["encode", "train", "images", "scores"]
    for stage in stages.values():
        assert all(need.order < stage.order for need in stage.needs)


def test_what_a_stage_is_expected_to_take(stages: dict[str, Stage]) -> None:
    seconds = {kind: stage.expected_seconds(COST) for kind, stage in stages.items()}
    assert seconds == {
        "encode": 2 * 5076 * 10_000, "train": 4 * 4, "images": 6 * 100, "scores": 6 * 10_000
    }  # fmt: skip


def test_only_scores_are_left_out_of_a_plain_log(stages: dict[str, Stage]) -> None:
    assert [kind for kind, stage in stages.items() if not stage.logged] == ["scores"]


def test_an_identity_is_of_kind_key_and_needs() -> None:
    plain = identify("images", {"a": 1, "b": 2}, ["0"])
    assert plain == identify("images", {"b": 2, "a": 1}, ["0"])
    others = [
        identify("scores", {"a": 1, "b": 2}, ["0"]), identify("images", {"a": 1, "b": 3}, ["0"]),
        identify("images", {"a": 1, "b": 2}, ["1"]), identify("images", {"a": 1, "b": 2}, []),
    ]  # fmt: skip
    assert len({plain, *others}) == 5
