"""The recipes for real models, with small random ones in the places that they name.

The folders are laid out as docs/recipes.md says. No path is changed, but that of rewards' weights,
which a recipe leaves to the Hub's cache.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from bench.assets import shipped_models
from bench.experiment.collect import make_protocol
from bench.experiment.prepare import prepare
from bench.experiment.run import ablate
from bench.report.folder import render, stale
from bench.report.notes import warning
from bench.rewards import REWARDS
from bench.spec.model import Spec, load_spec, override, parse_spec, shipped
from bench.stages.store import Store
from trainers.errors import UserError

Row = dict[str, Any]
RECIPES = [name for name in shipped() if load_spec(name).base not in shipped_models()]
SMALL = {
    "train.data.resolution": 32,
    "train.precision": "float32",
    "train.weights.frozen_dtype": "float32",
    "generate.height": 32,
    "generate.width": 32,
    "generate.dtype": "float32",
    "generate.steps": 1,
    "generate.device": "cpu",
    "encoding.device": "cpu",
    "training.device": "cpu",
    "scoring": {},
    "rewards": ["mini-aesthetic"],
    "primary": "mini-aesthetic",
}
"""Sizes and devices; and of the rewards, one that is here."""


def pick_a_pic(rows: list[Row], count: int) -> pa.Table:
    """Rows with every column of Pick-a-Pic v2: three of ``rows``, JPEG, in turn; one is a tie."""
    found = []
    for number in range(count):
        image, label = rows[number % 3]["jpg_0"], 0.5 if number == 3 else float(number % 2)
        found.append(
            {
                "are_different": True, "best_image_uid": f"b{number}",
                "caption": f"caption {number}", "created_at": "2023-04-01T00:00:00",
                "has_label": True, "image_0_uid": f"b{number}", "image_0_url": "https://x/0.png",
                "image_1_uid": f"c{number}", "image_1_url": "https://x/1.png", "jpg_0": image,
                "jpg_1": rows[(number + 1) % 3]["jpg_0"], "label_0": label, "label_1": 1 - label,
                "model_0": "a", "model_1": "b", "ranking_id": number, "user_id": number,
                "num_example_per_prompt": 1,
            }
        )  # fmt: skip
    return pa.Table.from_pylist(found)


@pytest.fixture(scope="module")
def place(
    rows: list[Row], folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A working directory as docs/recipes.md has it, with 71 pairs."""
    place = tmp_path_factory.mktemp("place")
    data = place / "data" / "pickapic_v2" / "data"
    data.mkdir(parents=True)
    pairs = pick_a_pic(rows, 72)
    for number in range(2):
        name = f"train-0000{number}-of-00002-0123456789abcdef.parquet"
        pq.write_table(pairs.slice(36 * number, 36), data / name)
    prompts = pick_a_pic(rows, 500)
    captions = pa.array([f"prompt {number % 487}" for number in range(500)])
    prompts = prompts.set_column(prompts.schema.get_field_index("caption"), "caption", captions)
    pq.write_table(prompts, data / "test_unique-00000-of-00001-fedcba9876543210.parquet")
    for name in RECIPES:
        spec = load_spec(name)
        link = place / spec.base
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.symlink_to(folders[spec.backbone])
    return place


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of the rewards' names: what a signature needs, and nobody can score with."""
    folder = tmp_path_factory.mktemp("weights")
    for name in load_spec(RECIPES[0]).rewards:
        (folder / name).mkdir()
        for source in REWARDS.get(name).card.weights:
            for file in source.files:
                (folder / name / file).write_text(f"{name} {file}")
    return {path.name: str(path) for path in folder.iterdir()}


def changed(name: str, changes: Mapping[str, Any], quick: bool = False) -> Spec:
    raw = load_spec(name, quick).model_dump(mode="json")
    return parse_spec(override(raw, dict(changes)), name)


def test_there_are_recipes_for_every_backbone() -> None:
    assert RECIPES == ["paper-sd15", "paper-sdxl", "sd15-lora-12gb", "sd15-lora-1gpu", "sd3-lora"]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_finds_its_files(
    name: str, quick: bool, place: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is checked that is checked before work begins; only the number of pairs is changed."""
    monkeypatch.chdir(place)
    spec = changed(name, {"train.data.subset": 64, "scoring.weights": weights}, quick)
    experiment = prepare(spec)
    assert (experiment.pairs, experiment.ties) == (64, 1)
    assert experiment.prompts.repeated == 13
    assert len(experiment.prompts.items) == (spec.prompt_limit or 487)
    rewards = make_protocol(experiment).rewards
    marks = {reward.name: warning(reward) for reward in rewards if reward.marks}
    mark = "trained on Pick-a-Pic/train, of one source with the prompts"
    assert marks == {"pickscore": mark}


def test_a_copy_that_lacks_pairs_is_refused(
    place: Path, weights: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match="851293 pairs are wanted, but there are 71"):
        prepare(changed("paper-sd15", {"scoring.weights": weights}))


def test_a_recipe_runs_in_little(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--quick`` on the CPU: pairs encoded, all arms trained, images made, scored, compared."""
    monkeypatch.chdir(place)
    experiment = prepare(changed("paper-sd15", SMALL, quick=True))
    folder, outcome = ablate(experiment, tmp_path, 1, Console(file=io.StringIO()))
    assert outcome.failed == {}
    results = render(folder)
    assert list(results.means) == ["base", "DPO", "DPO+A", "DPO+B", "DPO+A+B"]
    assert results.missing == {"mini-aesthetic": 0}
    assert folder == tmp_path / experiment.spec.name
    assert stale(folder) == []
    logs = list((tmp_path / "store").glob("train/*/metrics.jsonl"))
    assert [steps(log) for log in logs] == [[1, 2]] * 4


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "paper-sd15"])
def test_an_arm_of_every_recipe_runs_in_little(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arm with both components, from its pairs to its images."""
    monkeypatch.chdir(place)
    sets = prepare(changed(name, SMALL, quick=True)).sets
    images = next(entry.images for entry in sets if entry.arm == "DPO+A+B")
    assert images.train is not None
    store = Store(tmp_path)
    for stage in (images.train.encode, images.train, images):
        stage.execute(store, lambda units: None)
    assert steps(images.train.output(store) / "metrics.jsonl") == [1, 2]
    assert len(list(images.output(store).glob("*.png"))) == 4


def steps(log: Path) -> list[int]:
    return [json.loads(line)["step"] for line in log.read_text().splitlines()]
