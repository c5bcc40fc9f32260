"""The oracle as a reward."""

import numpy as np
import pytest
from PIL import Image

from bench.rewards.oracle import Oracle
from bench.world.oracle import judge
from bench.world.scenes import CLEAN, Look, all_scenes, render
from trainers.errors import UserError

SCENE = all_scenes()[100]


def test_score_is_the_judgement_of_the_pixels():
    faded = render(SCENE, Look(fade=0.5, softness=0.8))
    scores = Oracle().score(
        [Image.fromarray(render(SCENE, CLEAN)), Image.fromarray(faded)], [SCENE.caption] * 2
    )
    assert scores[1] == np.float32(judge(faded, SCENE).score)
    assert scores[1] < scores[0] - 0.1
    assert scores[0] > 0.95


def test_another_size_is_refused_with_the_mend():
    with pytest.raises(UserError, match="64x64 pixels, got 128x64"):
        Oracle().score([Image.new("RGB", (128, 64))], [SCENE.caption])


def test_another_caption_is_refused_with_an_example():
    with pytest.raises(UserError, match="miniature-world captions only"):
        Oracle().score([Image.new("RGB", (64, 64))], ["an astronaut riding a horse"])
