"""Rewards of the published packages, with a worker that only imitates one.

The packages themselves are met in tests/parity/test_published.py, where they are installed.
"""

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.official import client
from bench.official.build import STAMP, python_of
from bench.official.client import Worker
from bench.rewards.official import HPSv2Official, ImageRewardOfficial
from trainers.errors import UserError

# Scores are the width and mode in the PNG's header, and the prompt's length: each tells whether
# the right image reached it in the right form.
HONEST = """
import json, struct, sys
for line in sys.stdin:
    given = json.loads(line)
    print(len(given["images"]), *set(given["prompts"]), file=sys.stderr)
    scores = []
    for path, prompt in zip(given["images"], given["prompts"], strict=True):
        width, height, depth, colour = struct.unpack(">IIBB", open(path, "rb").read()[16:26])
        scores.append(width + 1000 * len(prompt) + 100000 * colour)
    with open(NOTES, "a") as notes:
        notes.write(line)
    print(json.dumps({"scores": scores}), flush=True)
"""
KEEPS = """
import json, shutil, sys
for line in sys.stdin:
    given = json.loads(line)
    for number, path in enumerate(given["images"]):
        shutil.copy(path, f"{NOTES}{number}")
    print(json.dumps({"scores": [0.0] * len(given["images"])}), flush=True)
"""
REFUSES = """
import json, sys
for line in sys.stdin:
    answer = {"error": "ValueError: no such tensor", "traceback": "in the third layer"}
    print(json.dumps(answer), flush=True)
"""
DIES = """
import sys
sys.stdin.readline()
print("out of memory", file=sys.stderr)
sys.exit(7)
"""
HANGS = "import sys, time\nprint('waiting', file=sys.stderr, flush=True)\ntime.sleep(600)"
BABBLES = "import sys\nsys.stdin.readline()\nprint('loading checkpoint', flush=True)"
RGB_PNG = 2
"""Colour type of a PNG without alpha or palette."""


@pytest.fixture
def imitate(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Makes the worker run a script, in an environment whose Python is this one."""
    folder = tmp_path / "official"
    python_of(folder).parent.mkdir(parents=True)
    python_of(folder).symlink_to(sys.executable)
    stamp = {"requirements": "", "found": {"hpsv2": "1.2.0", "image-reward": "1.5"}}
    (folder / STAMP).write_text(json.dumps(stamp))
    monkeypatch.setenv(client.PLACE, str(folder))

    def run(script: str) -> Path:
        path = tmp_path / "worker.py"
        path.write_text(f"NOTES = {str(tmp_path / 'notes')!r}\n{script}")
        monkeypatch.setattr(client, "WORKER", path)
        return folder

    return run


@pytest.fixture
def weights(tmp_path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in (
        "HPS_v2.1_compressed.pt",
        "config.json",
        "tokenizer.json",
        "ImageReward.pt",
        "med_config.json",
    ):
        (folder / name).write_bytes(b"none")
    return folder


def test_every_image_meets_its_prompt_upright_and_in_rgb(imitate, weights, tmp_path):
    imitate(HONEST)
    turned = Image.new("RGB", (40, 30))
    turned.getexif()[0x0112] = 6
    images = [Image.new("RGBA", (10, 5)), turned, Image.new("P", (20, 5)), Image.new("L", (30, 5))]
    scores = HPSv2Official(weights=weights).score(images, ["aa", "b", "aa", ""])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(
        scores, 100000 * RGB_PNG + np.float32([10 + 2000, 30 + 1000, 20 + 2000, 30])
    )
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    # One call for each prompt, since the package reads its checkpoint at each.
    assert [note["prompts"] for note in notes] == [["aa", "aa"], ["b"], [""]]
    assert {note["reward"] for note in notes} == {"hpsv2.1"}
    assert not any(Path(path).exists() for note in notes for path in note["images"])


def test_image_reward_is_given_what_the_file_holds(imitate, weights, tmp_path):
    """Mode, palette, transparency and pixels: it resizes before it converts."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(256, size=(9, 7, 3), dtype=np.uint8))
    palette = colours.quantize(8)
    transparent = palette.copy()
    transparent.info["transparency"] = 3
    faded = colours.convert("RGBA")
    faded.putalpha(Image.fromarray(rng.integers(256, size=(9, 7), dtype=np.uint8)))
    images = [
        colours, palette, transparent, faded,
        *(colours.convert(mode) for mode in ("1", "L", "CMYK", "YCbCr")), faded.convert("LA"),
    ]  # fmt: skip
    imitate(KEEPS)
    ImageRewardOfficial(weights=weights).score(images, [""] * len(images))
    for number, image in enumerate(images):
        with Image.open(f"{tmp_path / 'notes'}{number}") as given:
            assert (given.mode, given.size) == (image.mode, image.size)
            assert given.getpalette() == image.getpalette()
            assert given.info.get("transparency") == image.info.get("transparency")
            for how in (given.mode, "RGB", "RGBA"):
                np.testing.assert_array_equal(given.convert(how), image.convert(how))
            small = [each.resize((3, 3), Image.Resampling.BICUBIC) for each in (given, image)]
            np.testing.assert_array_equal(*(each.convert("RGB") for each in small))


def test_large_groups_go_in_parts(imitate, weights, tmp_path, monkeypatch):
    imitate(HONEST)
    monkeypatch.setattr("bench.rewards.official.GROUP", 2)
    images = [Image.new("RGB", (8 + i, 8)) for i in range(5)]
    scores = ImageRewardOfficial(weights=weights).score(images, [""] * 5)
    np.testing.assert_array_equal(scores - 100000 * RGB_PNG, np.float32([8, 9, 10, 11, 12]))
    assert len((tmp_path / "notes").read_text().splitlines()) == 3


def test_no_images_give_no_scores(imitate, weights):
    imitate(HONEST)
    assert HPSv2Official(weights=weights).score([], []).shape == (0,)


def test_what_the_package_refuses_is_told_with_its_traceback(imitate, weights):
    imitate(REFUSES)
    reward = HPSv2Official(weights=weights)
    with pytest.raises(UserError, match=r"(?s)no such tensor.*the third layer"):
        reward.score([Image.new("RGB", (8, 8))], ["a"])
    with pytest.raises(UserError, match="no such tensor"):
        reward.load()


def test_a_worker_that_dies_is_told_with_its_last_words(imitate, weights):
    imitate(DIES)
    reward = HPSv2Official(weights=weights)
    with pytest.raises(RuntimeError, match=r"(?s)ended with code 7.*out of memory"):
        reward.load()
    # And once more, when it is long dead.
    with pytest.raises(RuntimeError, match=r"ended with code 7"):
        reward.load()


def test_a_worker_that_hangs_is_ended(imitate, weights, monkeypatch):
    imitate(HANGS)
    monkeypatch.setattr("bench.rewards.official.START", 1.0)
    reward = HPSv2Official(weights=weights)
    with pytest.raises(RuntimeError, match=r"gave no answer within 1 s"):
        reward.load()
    assert reward.worker._process.poll() is not None


def test_a_long_request_does_not_wait_for_a_worker_that_does_not_read(imitate, weights):
    folder = imitate(HANGS)
    worker = Worker(python_of(folder), {}, "cpu")
    with pytest.raises(RuntimeError, match="gave no answer"):
        worker.ask("hpsv2.1", [Path("image.png")], ["x" * 2**20], 0.5)


def test_anything_but_an_answer_is_an_error(imitate, weights):
    imitate(BABBLES)
    with pytest.raises(RuntimeError, match="answered 'loading checkpoint"):
        HPSv2Official(weights=weights).load()


def test_the_process_ends_with_the_reward(imitate, weights):
    imitate(HONEST)
    reward = HPSv2Official(weights=weights)
    reward.load()
    process = reward.worker._process
    assert process.poll() is None
    del reward
    gc.collect()
    assert process.poll() is not None


def test_a_missing_environment_is_told_with_the_mend(weights, tmp_path, monkeypatch):
    monkeypatch.delenv(client.PLACE, raising=False)
    monkeypatch.setenv("DPO_BENCH_HOME", str(tmp_path / "home"))
    for use in (lambda r: r.signature, lambda r: r.load(), lambda r: r.score([], [])):
        with pytest.raises(UserError, match="bench official build"):
            use(HPSv2Official(weights=weights))


def test_the_signature_follows_packages_weights_and_kind_of_device(imitate, weights):
    folder = imitate(HONEST)
    seen = {HPSv2Official(weights=weights).signature}
    assert HPSv2Official(weights=weights).signature in seen
    seen.add(ImageRewardOfficial(weights=weights).signature)
    seen.add(HPSv2Official(weights=weights, device="cuda").signature)
    (weights / "HPS_v2.1_compressed.pt").write_bytes(b"other")
    seen.add(HPSv2Official(weights=weights).signature)
    (folder / STAMP).write_text(json.dumps({"found": {"hpsv2": "1.3.0"}}))
    seen.add(HPSv2Official(weights=weights).signature)
    assert len(seen) == 5
    assert all("|given|" in signature for signature in seen)


def test_our_modules_stay_out_of_the_environment(imitate, weights, monkeypatch):
    """A PYTHONPATH that leads to our packages would shadow the environment's."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    imitate("import os\nassert 'PYTHONPATH' not in os.environ\n" + HONEST)
    HPSv2Official(weights=weights).load()
