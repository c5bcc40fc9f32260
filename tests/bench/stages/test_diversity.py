"""How different the images of a prompt are."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.cli import run
from bench.experiment.prepare import prepare
from bench.images.folder import image_name
from bench.results.files import read_protocol, read_scores
from bench.spec.model import parse_spec
from bench.stages.described import describe, read_stage
from bench.stages.diversity import SIDE, DiversityStage, distances
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.input.image import open_rgb


@pytest.fixture
def several(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny |= {"measures": ["diversity"], "seeds": [0], "components": {}, "prompt_limit": 2}
    tiny["generate"] = {"steps": 2, "images_per_prompt": 3}
    tiny["train"] |= {"steps": 1}
    return tiny


def test_distances_by_hand() -> None:
    black, white = np.zeros((2, 2, 3)), np.ones((2, 2, 3))
    assert distances([black, white]).tolist() == [1, 1]
    assert distances([black, black, white]).tolist() == [0.5, 0.5, 1]
    half = black.copy()
    half[0] = 1  # Half of the pixels, so that the root of one half is between them.
    assert distances([black, half, white]) == pytest.approx([(np.sqrt(0.5) + 1) / 2, np.sqrt(0.5),
                                                             (np.sqrt(0.5) + 1) / 2])  # fmt: skip


def test_one_image_of_each_prompt_has_none(several: dict[str, Any]) -> None:
    several["generate"] = {"steps": 2}
    with pytest.raises(UserError, match=r"set generate\.images_per_prompt"):
        parse_spec(several, "here")


def test_it_stands_beside_the_rewards(
    several: dict[str, Any], write_spec: Callable[[Mapping[str, Any]], str], tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    assert run(["ablate", write_spec(several), "--out", str(out), "--workers", "1"]) == 0
    protocol = read_protocol(out / "tiny")
    assert [reward.name for reward in protocol.rewards] == ["oracle", "diversity"]
    scores, _ = read_scores(out / "tiny")
    own = scores[scores["reward"] == "diversity"]
    assert len(own) == (1 + 1 + 2 * 3) * 2 * 3
    experiment = prepare(parse_spec(several, "here"))
    store = Store(out / "store")
    entry = experiment.sets[1]
    for prompt_id, prompt in experiment.prompts.items:
        images = [
            np.asarray(open_rgb((entry.images.output(store) / image_name(prompt, k)).read_bytes()))
            for k in range(3)
        ]
        assert images[0].shape == (SIDE, SIDE, 3), "so that none is brought to another size"
        expected = distances([image / 255 for image in images])
        found = of(own, "DPO", prompt_id)
        assert found == pytest.approx(expected, rel=2**-23), "kept in float32"
        assert found.min() > 0


def of(scores: pd.DataFrame, arm: str, prompt_id: str) -> Any:
    rows = scores[(scores["arm"] == arm) & (scores["prompt_id"] == prompt_id)]
    return rows.sort_values("k")["score"].to_numpy()


def test_another_machine_can_run_it(several: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    stages = [s for s in prepare(parse_spec(several, "here")).stages()
              if isinstance(s, DiversityStage)]  # fmt: skip
    describe(stages, store)
    assert read_stage(stages[0].id, store)[0] == stages[0]
