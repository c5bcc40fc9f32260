"""Our rewards give the numbers of the published implementations.

golden.json holds what those gave, at small size with the same weights, tokenizers, images and
prompts (official.py computes it in their environment). Both sides run float32, so they may differ
by rounding only: the bound is 1e-5 for pixels, for features of length 1 and for a cosine. A rating
is a linear map ``w`` of features ``f``: where these are off by 1e-5 of their length, it is off by
``1e-5 |w| |f|``, however small it is itself after all that cancels out in it.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from architectures import SMALL, head_shapes, imagereward_shapes, weights
from cases import GOLDEN, PROMPTS, STRANGE, digest, features, images, pairs, plain, source
from checkpoints import NAMES, write

from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.rewards.imagereward import ImageReward
from bench.rewards.kit.blip import STD
from bench.rewards.kit.pixels import RESIZE_FIRST
from bench.rewards.kit.shared import Shared
from bench.rewards.kit.text import encode
from trainers.input.image import to_rgb, upright

RECORDED: dict[str, Any] = json.loads(GOLDEN.read_text())
TOWERS = tuple(name for name in NAMES if "text" in RECORDED["rewards"][name])
WITH_TEXT = (*TOWERS, "imagereward")
BOUND = 1e-5
SCALES = {"clip": 100, "clip-h14": 100, "pickscore": float(np.exp(np.float16(np.log(100))))}
"""What a cosine is multiplied by."""
RATINGS = ("aesthetic", "imagereward")
CLEANED = ("curly", "entities", "scripts", "ligature", "mojibake")
DIFFERENT = {
    "clip": CLEANED,
    "clip-h14": ("other-end",),
    "hpsv2.0": ("other-end",),
    "hpsv2.1": ("other-end",),
    "imagereward": ("added",),
}
"""Prompts that we tokenize otherwise, by reward: all other ones agree.

``clip`` takes a prompt as it is, as transformers does with the same file; OpenAI's package repairs
it first (ftfy, HTML entities, lower case by word). open_clip and hpsv2 take the words
``<start_of_text>`` and ``<end_of_text>`` in a prompt for its start and end. image-reward adds the
tokens ``[DEC]`` and ``[ENC]`` to BERT's.
"""


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reward]:
    """Gives the reward of a name on the small weights."""
    shared, made = Shared(), {}

    def make(name: str) -> Reward:
        if name not in made:
            folder = tmp_path_factory.mktemp("weights")
            write(name, folder)
            made[name] = REWARDS.get(name)(weights=folder, shared=shared)
        return made[name]

    return make


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return images()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = RECORDED["rewards"][name]
    return found


def agreed(name: str, part: str) -> dict[str, Any]:
    """What is recorded of each prompt, those left out that are known to differ."""
    prompts = golden(name)[part].items()
    return {key: value for key, value in prompts if key not in DIFFERENT.get(name, ())}


def read(reward: Reward, key: str) -> list[int]:
    """Token ids of a prompt, those left out that can change nothing.

    CLIP's attention looks back only and its features are those of the first end token, the
    largest number. BERT's mask hides what is not real.
    """
    if isinstance(reward, ImageReward):
        (ids,), (mask,) = encode(reward.tokenizer, [PROMPTS[key]])
        assert len(ids) == 35
        return ids[mask == 1].tolist()
    row = reward.tokens([PROMPTS[key]])[0].tolist()
    return row[: row.index(max(row)) + 1]


def bound(name: str, values: Any) -> np.ndarray:
    """The largest difference allowed to each score."""
    scale = sensitivity(name) if name in RATINGS else SCALES.get(name, 1)
    return np.full(np.shape(values), BOUND * scale)


@cache
def sensitivity(name: str) -> float:
    """``|w| |f|`` of a rating: its head is a chain of linear layers without activations."""
    if name == "aesthetic":
        layers, length, scale = weights(head_shapes(), name), 1.0, 1.0  # Features of length 1.
        prefix = "layers"
    else:
        layers = weights(imagereward_shapes(SMALL[name]), name)
        norms = [key for key in layers if key.endswith(".output.LayerNorm.weight")]
        # What a layer norm gives is as long as its weight.
        length, scale, prefix = float(np.linalg.norm(layers[norms[-1]])), STD, "mlp.layers"
    chain = [layers[f"{prefix}.{number}.weight"].astype(np.float64) for number in (7, 6, 4, 2, 0)]
    return float(np.linalg.norm(np.linalg.multi_dot(chain))) * length / scale


def test_images_decode_to_the_bytes_that_were_scored(stored):
    assert {k: source(image) for k, image in stored.items()} == RECORDED["sources"]


def test_golden_scores_tell_images_apart(name):
    """Or agreement would mean nothing: they differ by a hundred times the bound and more."""
    values = [s for _, text, s in golden(name)["scores"] if text == "plain"]
    assert np.std(values) > 100 * bound(name, 0.0)


def test_pixels(name, stored):
    preprocessing = getattr(REWARDS.get(name), "preprocessing", RESIZE_FIRST)
    for key, expected in golden(name)["pixels"].items():
        pixels = preprocessing.run(upright(stored[key]), 224)
        found = digest(pixels)
        np.testing.assert_allclose(found["sample"], expected["sample"], rtol=0, atol=BOUND)
        for total in ("sum", "squares"):
            assert abs(found[total] - expected[total]) <= BOUND * pixels.size, (key, total)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_tokens(name, rewards):
    for key, expected in agreed(name, "tokens").items():
        assert read(rewards(name), key) == expected, key


@pytest.mark.parametrize(("name", "key"), [(n, key) for n in DIFFERENT for key in DIFFERENT[n]])
def test_what_is_said_to_differ_does(name, key, rewards):
    assert read(rewards(name), key) != golden(name)["tokens"][key]


@pytest.mark.parametrize("name", TOWERS)
def test_text_features(name, rewards):
    for key, expected in agreed(name, "text").items():
        found = features(rewards(name).text_features([PROMPTS[key]])[0])
        np.testing.assert_allclose(found["unit"], expected["unit"], rtol=0, atol=BOUND, err_msg=key)


def test_image_features(name, rewards, stored):
    for key, expected in golden(name)["image"].items():
        if name == "imagereward":
            pixels = RESIZE_FIRST.run(upright(stored[key]), 224)
            found = features(rewards(name).rater.see(pixels[None])[0, 0])
            assert found["norm"] == pytest.approx(expected["norm"], rel=BOUND)
        else:
            found = features(rewards(name).image_features([stored[key]])[0])
        np.testing.assert_allclose(found["unit"], expected["unit"], rtol=0, atol=BOUND, err_msg=key)


def test_scores(name, rewards, stored):
    """In one call, though the published code scored one image at a time."""
    told = golden(name)["scores"]
    assert [(image, text) for image, text, _ in told] == pairs()
    told = [entry for entry in told if entry[1] not in DIFFERENT.get(name, ())]
    found = rewards(name).score([stored[i] for i, _, _ in told], [PROMPTS[t] for _, t, _ in told])
    expected = np.array([score for *_, score in told])
    far = np.abs(found - expected) > bound(name, expected)
    assert not far.any(), [(told[i], float(found[i])) for i in np.flatnonzero(far)]


def test_an_orientation_is_applied_here_and_not_in_the_published_code(name, rewards, stored):
    """Without it we give the published number; generated images carry none."""
    image, reward = stored["turned"], rewards(name)
    lying = image.copy()
    lying.getexif().clear()
    told = golden(name)["lying"]
    allowed = bound(name, told["score"])
    assert abs(reward.score([lying], [PROMPTS["plain"]])[0] - told["score"]) <= allowed
    assert abs(reward.score([image], [PROMPTS["plain"]])[0] - told["score"]) > 10 * allowed


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_shown_in_rgb(name, strange, rewards, stored):
    """Palettes and alpha, made plain beforehand, score alike in both whatever the order."""
    told = golden(name)["rgb"][strange]
    found = rewards(name).score([to_rgb(stored[strange])], [PROMPTS["plain"]])[0]
    np.testing.assert_array_equal(np.asarray(plain(stored[strange])), to_rgb(stored[strange]))
    assert abs(found - told) <= bound(name, told)


def test_what_the_published_code_refuses():
    """hpsv2 keeps alpha as a fourth channel, which its model cannot take; we drop it."""
    assert {n: list(golden(n)["refuses"]) for n in NAMES if golden(n)["refuses"]} == {
        "hpsv2.0": ["alpha"],
        "hpsv2.1": ["alpha"],
    }
