"""An experiment that grows: what is drawn and scored is what is new, and no model is loaded twice.

All stages run in this process, in the order in which one worker would take them.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bench.assets import pairs_file
from bench.experiment.collect import collect
from bench.experiment.prepare import Experiment, prepare
from bench.experiment.run import missing_stages, unscored_images
from bench.images.draw import draw
from bench.images.folder import Key, read_index
from bench.launch.graph import Graph
from bench.rewards import REWARDS
from bench.rewards.base import Card, Reward, Scores
from bench.spec.model import Generate, override, parse_spec
from bench.stages import score
from bench.stages.store import Store

PROMPTS = 3
SETS = 1 + 2 + 2 * 2
"""The base model, two seeds of an arm, and two pairs of the control."""


@dataclass
class Seen:
    """What was done."""

    drawn: list[Key] = field(default_factory=list)
    scored: Counter[tuple[str, str, bytes]] = field(default_factory=Counter)
    """By reward, prompt and pixels."""
    loads: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.drawn.clear()
        self.scored.clear()
        self.loads.clear()


class Counted(Reward):
    """The mean of the pixels, by a model that fills all memory."""

    seen: Seen
    key: str

    @property
    def model_key(self) -> str:
        return self.key

    def load(self) -> None:
        self.shared.model(self.key, 2**60, lambda: self.seen.loads.append(self.key))

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        self.load()
        name = self.card.name
        self.seen.scored.update(
            (name, p, i.tobytes()) for p, i in zip(prompts, images, strict=True)
        )
        return np.array([np.asarray(image).mean() for image in images], np.float32)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What is drawn and scored; of the rewards here, the first and the last share a model."""
    seen = Seen()

    def spy(pipeline: Any, prompts: Any, keys: list[Key], settings: Generate) -> Any:
        seen.drawn.extend(keys)
        return draw(pipeline, prompts, keys, settings)

    monkeypatch.setattr("bench.stages.generate.draw", spy)
    for name, model in {"one": "x", "two": "y", "three": "x"}.items():
        card = Card(
            name=name, scale="0-255", range=(0, 255), weights=(), preprocessing="none",
            text=None, trained_on=(), licence="none", origin="rule",
        )  # fmt: skip
        kind = type(name, (Counted,), {"card": card, "key": model, "seen": seen})
        monkeypatch.setitem(REWARDS._loaded, name, kind)
    for cache in (score._worker_shared, score._worker_reward):
        cache.cache_clear()
    torch.set_num_threads(1)
    return seen


@pytest.fixture
def run(
    tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path
) -> Callable[..., tuple[Experiment, Store]]:
    """Run what is missing of a tiny experiment, with dotted keys changed."""
    pq.write_table(pq.read_table(pairs_file()).slice(0, 16), tmp_path / "pairs.parquet")
    smaller: dict[str, Any] = {
        "data": str(tmp_path / "pairs.parquet"), "components": {}, "train.steps": 1,
        "prompt_limit": PROMPTS, "rewards": ["one", "two", "three"], "primary": "one",
        "statistics": {"control_pairs": 2}, "generate.steps": 1,
    }  # fmt: skip

    def go(**changes: Any) -> tuple[Experiment, Store]:
        raw = override(tiny_experiment(), smaller | changes)
        experiment, store = prepare(parse_spec(raw, "here")), Store(tmp_path / "store")
        graph = Graph(missing_stages(experiment, store))
        while (stage := graph.begin()) is not None:
            stage.execute(store, lambda units: None)
            graph.finish(stage)
        assert graph.settled
        return experiment, store

    return go


def images(experiment: Experiment, store: Store) -> dict[tuple[str, Key], bytes]:
    """The bytes of every image by identity of its network, and key."""
    found: dict[tuple[str, Key], bytes] = {}
    for entry in experiment.sets:
        folder = entry.images.output(store)
        network = entry.images.train.id if entry.images.train else "base"
        for row in read_index(folder):
            found[network, (row["prompt"], row["k"])] = (folder / row["file"]).read_bytes()
    return found


def test_what_is_new_is_drawn_and_scored_and_nothing_else(
    run: Callable[..., tuple[Experiment, Store]], seen: Seen
) -> None:
    first = images(*run())
    assert len(seen.drawn) == len(first) == SETS * PROMPTS
    assert set(seen.scored.values()) == {1}
    scored = set(seen.scored)

    for changes, prompts, each in (
        ({"prompt_limit": PROMPTS + 1}, PROMPTS + 1, 1),
        ({"prompt_limit": PROMPTS + 1, "generate.images_per_prompt": 2}, PROMPTS + 1, 2),
    ):
        seen.clear()
        experiment, store = run(**changes)
        more = images(experiment, store)
        assert len(more) == SETS * prompts * each
        assert {key: more[key] for key in first if key in more} == {
            key: first[key] for key in first if key in more
        }
        assert len(seen.drawn) == len(more.keys() - first.keys())
        assert set(seen.scored.values()) == {1}
        assert not scored & set(seen.scored)
        assert len(collect(experiment, store)) == 3 * len(more)
        scored |= set(seen.scored)
        first |= more

    seen.clear()
    assert run()[1].verify() > 0
    assert (seen.drawn, seen.scored) == ([], Counter())


def test_sets_that_are_deleted_cost_no_image_and_no_score_but_the_damaged(
    run: Callable[..., tuple[Experiment, Store]], seen: Seen
) -> None:
    """As the store asks for where one is damaged: here in place, and so in the pool as well."""
    experiment, store = run()
    before = images(experiment, store)
    folder = experiment.sets[0].images.output(store)
    row = read_index(folder)[1]
    damaged = row["prompt"], row["k"]
    (folder / row["file"]).write_bytes(b"something else")
    for kind in ("images", "scores"):
        shutil.rmtree(store.root / kind)
    seen.clear()
    after = images(*run())
    assert damaged in seen.drawn  # In the batch that it was drawn in, so that it is the same.
    assert len(seen.drawn) < len(before)
    assert after == before
    assert not seen.scored


def test_each_model_is_loaded_once(
    run: Callable[..., tuple[Experiment, Store]], seen: Seen
) -> None:
    """Though no two of them fit into memory: sets are scored by one before the next."""
    run()
    assert seen.loads == ["x", "y"]


def test_an_image_that_a_reward_fails_at_is_a_gap_that_is_named(
    run: Callable[..., tuple[Experiment, Store]], seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other images of its set have their scores, and a second run tries nothing again."""
    whole = Counted.score
    prompt = ""

    def picky(self: Counted, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        if self.card.name == "two" and prompt in prompts:
            raise ValueError("too odd")
        return whole(self, images, prompts)

    monkeypatch.setattr(Counted, "score", picky)
    experiment, store = run()
    assert unscored_images(experiment, store) == []
    prompt = experiment.prompts.items[1][1]
    for kind in ("scores", "pool"):
        shutil.rmtree(store.root / kind, ignore_errors=True)
    experiment, store = run()
    scores = collect(experiment, store).to_pylist()
    missing = [row for row in scores if row["score"] is None]
    assert len(missing) == SETS
    assert {(row["reward"], row["prompt_id"]) for row in missing} == {
        ("two", experiment.prompts.items[1][0])
    }
    told = unscored_images(experiment, store)
    assert len(told) == SETS
    assert all("two of " in line and line.endswith("ValueError: too odd") for line in told)
    seen.clear()
    run()
    assert not seen.scored
