"""Images of what was trained under a prefix: made with it, known by it, paired without it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.assets import model_folder
from bench.cli import run
from bench.experiment.collect import make_protocol
from bench.experiment.prepare import prepare
from bench.images.draw import draw, load_pipeline
from bench.images.folder import image_name
from bench.results.protocol import Arm
from bench.spec.model import override, parse_spec
from bench.spec.prompts import load_prompts
from bench.stages.generate import GenerateStage, pool_identity
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.record import RECORD, prompt_prefix

CSFT = {"name": "csft", "good": "+ ", "bad": "- "}


@pytest.fixture
def spec(tiny: dict[str, Any]) -> dict[str, Any]:
    """Fine-tuning with and without a prefix, on eight pairs."""
    objectives = {"CSFT": {"objective": CSFT}, "SFT": {"objective": {"name": "sft"}}}
    changes = {"objectives": objectives, "train.data": {"subset": 8}, "components": {},
               "seeds": [0], "train.steps": 1, "prompt_limit": 2}  # fmt: skip
    return override(tiny, changes)


def of_arm(spec: dict[str, Any], arm: str) -> GenerateStage:
    sets = prepare(parse_spec(spec, "here")).sets
    return next(s.images for s in sets if s.arm == arm)


def train_of(stage: GenerateStage) -> TrainStage:
    assert stage.train is not None
    return stage.train


def test_what_it_changes_in_an_experiment(spec: dict[str, Any]) -> None:
    """Encodings and images of that arm alone; of the images also by the good prefix itself."""
    csft, sft, base = (of_arm(spec, name) for name in ("CSFT", "SFT", "base"))
    assert (csft.prefix, sft.prefix, base.prefix) == ("+ ", "", "")
    assert csft.key() == sft.key() | {"prefix": "+ "}
    assert sft.key() == base.key()
    ours, theirs = train_of(csft).encode, train_of(sft).encode
    assert ours.key() == theirs.key() | {"prefixes": ["+ ", "- "]}
    other = {"objectives.CSFT": {"objective": CSFT | {"bad": "bad "}}}
    again = of_arm(override(spec, other), "CSFT")
    assert again.key() == csft.key()
    assert train_of(again).encode.id != ours.id
    plain = pool_identity(csft.settings, csft.backbone, "0", {})
    assert plain != pool_identity(csft.settings, csft.backbone, "0", {}, "+ ")
    assert plain == pool_identity(csft.settings, csft.backbone, "0", {}, "")


def test_tables_say_so(spec: dict[str, Any]) -> None:
    """And say nothing of arms without; whose files are as they were."""
    protocol = make_protocol(prepare(parse_spec(spec, "here")))
    dumps = {arm.name: arm.model_dump() for arm in protocol.arms}
    assert dumps["CSFT"]["prompt_prefix"] == "+ "
    assert "prompt_prefix" not in dumps["SFT"]
    assert protocol.arms == tuple(Arm.model_validate(dump) for dump in dumps.values())


def test_images_are_made_under_the_good_prefix(spec: dict[str, Any], tmp_path: Path) -> None:
    """As drawn from prefix and prompt with the noise of the prompt alone, by either way to them.

    The index names the prompt, which is what they are scored by.
    """
    stage, store = of_arm(spec, "CSFT"), Store(tmp_path / "store")
    train = train_of(stage)
    for each in (train.encode, train, stage):
        each.execute(store, lambda units: None)
    network = train.output(store)
    assert json.loads((network / RECORD).read_text())["prompt_prefix"] == prompt_prefix(network)
    prompts = [prompt for _, prompt in load_prompts("mini-dev", 2).items]
    keys = [(prompt, 0) for prompt in prompts]
    pipeline = load_pipeline(model_folder("mini-sd"), network, "ddim")
    wanted = draw(pipeline, ["+ " + prompt for prompt in prompts], keys, stage.settings)
    bare = draw(pipeline, prompts, keys, stage.settings)

    words = ["generate", "--base", "mini-sd", "--network", str(network), "--prompts", "mini-dev"]
    words += ["--limit", "2", "--steps", "2", "--guidance", "4.0", "--out", str(tmp_path / "out")]
    assert run(words) == 0
    for folder in (stage.output(store), tmp_path / "out"):
        for prompt, image, plain in zip(prompts, wanted, bare, strict=True):
            found = np.asarray(Image.open(folder / image_name(prompt, 0)))
            assert np.array_equal(found, np.asarray(image))
            assert not np.array_equal(found, np.asarray(plain))


def test_a_network_without_a_record_has_no_prefix(tmp_path: Path) -> None:
    assert prompt_prefix(tmp_path) == ""
