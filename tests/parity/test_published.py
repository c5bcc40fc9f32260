"""The published packages through our pipe. Runs where DPO_BENCH_OFFICIAL names an environment."""

import json
import os

import numpy as np
import pytest
from cases import GOLDEN, PROMPTS, images
from checkpoints import write

from bench.official.client import PLACE
from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.rewards.official import HPSv2Official, HPSv20Official, ImageRewardOfficial
from trainers.errors import UserError

RECORDED = json.loads(GOLDEN.read_text())["rewards"]
PAIRS = (("wide", "curly"), ("turned", "plain"), ("alpha", "plain"), ("odd", "curly"))
pytestmark = pytest.mark.skipif(PLACE not in os.environ, reason=f"{PLACE} is not set")


@pytest.fixture(params=(HPSv20Official, HPSv2Official, ImageRewardOfficial))
def published(request: pytest.FixtureRequest, tmp_path) -> Reward:
    write(request.param.official, tmp_path)
    made: Reward = request.param(weights=tmp_path)
    return made


def test_scores_are_those_that_were_recorded_and_ours(published):
    """Of images as the pipe gives them: hpsv2's in RGB, and of each kind to image-reward."""
    stored = images()
    given = [stored[image].convert("RGB") for image, _ in PAIRS[:1]] + [
        stored[image] for image, _ in PAIRS[1:]
    ]
    prompts = [PROMPTS[text] for _, text in PAIRS]
    found = published.score(given, prompts)
    recorded = RECORDED[published.official]
    told = {(image, text): score for image, text, score in recorded["scores"]}
    assert found[0] == pytest.approx(told["wide", "curly"], rel=1e-5, abs=1e-5)
    assert found[1] == pytest.approx(recorded["rgb"]["turned"], rel=1e-5, abs=1e-5)
    keeps = isinstance(published, ImageRewardOfficial)
    alpha = told["alpha", "plain"] if keeps else recorded["rgb"]["alpha"]
    assert found[2] == pytest.approx(alpha, rel=1e-5, abs=1e-5)
    ours = REWARDS.get(published.official)(weights=published.weights)
    plainly = (
        given
        if keeps
        else [image if image.mode == "RGB" else image.convert("RGB") for image in given]
    )
    np.testing.assert_allclose(found, ours.score(plainly, prompts), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_that_lacks_tensors_is_refused(tmp_path):
    """image-reward itself would score with random ones in their place."""
    import torch

    write("imagereward", tmp_path)
    state = torch.load(tmp_path / "ImageReward.pt")
    del state["mlp.layers.7.weight"]
    torch.save(state, tmp_path / "ImageReward.pt")
    with pytest.raises(UserError, match=r"lacks 1 tensors, such as mlp\.layers\.7\.weight"):
        ImageRewardOfficial(weights=tmp_path).load()
