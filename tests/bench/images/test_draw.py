"""Paired images: what an image depends on, and what it does not."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from bench.assets import model_folder
from bench.experiment.single import generate_images
from bench.images.draw import draw, image_generator, load_pipeline
from bench.images.folder import (
    INDEX,
    LOCK,
    Key,
    add_image,
    extend_index,
    image_name,
    read_index,
)
from bench.spec.model import Generate
from bench.spec.prompts import load_prompts
from bench.stages.generate import write_images
from trainers.errors import UserError
from trainers.files import sha256_file
from trainers.sealed import SEALS, Seals

PROMPTS = load_prompts("mini-dev", 5).items
TOLERANCE = 2
"""Levels of 255. Sums in another order differ in the last bits, and a pixel may round the other
way; a tensor of another noise would differ by tens."""

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make images of the base model with 2 steps, and give their folder."""
    base = model_folder("mini-sd")

    def run(
        prompts: Iterable[tuple[str, str]] = PROMPTS,
        folder: Path | None = None,
        first: int = 0,
        network: Path | None = None,
        report: Callable[[int], None] = lambda _: None,
        **settings: Any,
    ) -> Path:
        folder = folder or tmp_path_factory.mktemp("images")
        chosen = Generate(**({"steps": 2, "guidance": 4.0, "batch_size": 2} | settings))
        texts = [prompt for _, prompt in prompts]
        write_images(base, network, "stable-diffusion", texts, chosen, folder, report, first)
        return folder

    return run


@pytest.fixture(scope="module")
def undisturbed(make: Make) -> Path:
    return make()


def pixels(folder: Path, prompt: str, k: int = 0) -> NDArray[np.int16]:
    with Image.open(folder / image_name(prompt, k)) as image:
        return np.asarray(image).astype(np.int16)


def distance(first: Path, second: Path, prompts: Iterable[tuple[str, str]], k: int = 0) -> int:
    """The largest difference of a pixel."""
    found = [np.abs(pixels(first, p, k) - pixels(second, p, k)).max() for _, p in prompts]
    return int(max(found))


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_the_batch_size_changes_no_image(make: Make, undisturbed: Path, batch_size: int) -> None:
    assert distance(make(batch_size=batch_size), undisturbed, PROMPTS) <= TOLERANCE


def test_the_other_prompts_change_no_image(make: Make, undisturbed: Path) -> None:
    few = [PROMPTS[4], PROMPTS[1], PROMPTS[2]]
    assert distance(make(few, batch_size=3), undisturbed, few) <= TOLERANCE


def test_prompts_guidance_and_seed_change_an_image(make: Make, undisturbed: Path) -> None:
    # The distances above would be small for any prompt if the model drew nothing.
    (_, one), (_, two) = PROMPTS[:2]
    assert np.abs(pixels(undisturbed, one) - pixels(undisturbed, two)).max() > 10 * TOLERANCE
    first = PROMPTS[:1]
    assert distance(make(first, guidance=1.0), undisturbed, first) > TOLERANCE
    assert distance(make(first, seed=1), undisturbed, first) > 10 * TOLERANCE


def test_the_index_names_every_image_with_its_hash(make: Make) -> None:
    counts: list[int] = []
    folder = make(PROMPTS[:3], images_per_prompt=2, first=4, report=counts.append)
    rows = read_index(folder)
    assert [(r["prompt"], r["k"]) for r in rows] == [(p, k) for _, p in PROMPTS[:3] for k in (4, 5)]
    assert all(sha256_file(folder / row["file"]) == row["sha256"] for row in rows)
    names = [LOCK, SEALS, INDEX, *(row["file"] for row in rows)]
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)
    assert len({row["sha256"] for row in rows}) == 6
    assert counts == [2, 4, 6]


@pytest.fixture
def noises(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The initial noises of every image, in the order in which they are made."""
    seen: list[torch.Tensor] = []
    real = StableDiffusionPipeline.prepare_latents

    def spy(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        latents: torch.Tensor = real(self, *args, **kwargs)
        seen.extend(latents.clone())
        return latents

    monkeypatch.setattr(StableDiffusionPipeline, "prepare_latents", spy)
    return seen


def test_noise_is_shared_by_models_and_not_by_indices(
    make: Make, noises: list[torch.Tensor], tmp_path: Path
) -> None:
    other = UNet2DConditionModel.from_pretrained(model_folder("mini-sd") / "unet")
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.9)
    other.save_pretrained(tmp_path / "unet")
    two = PROMPTS[:2]
    base = make(two, images_per_prompt=2)
    trained = make(two, images_per_prompt=2, network=tmp_path, batch_size=4)
    further = make(two, first=2)
    of_base, of_trained, of_further = noises[:4], noises[4:8], noises[8:]
    assert all(torch.equal(a, b) for a, b in zip(of_base, of_trained, strict=True))
    different = [*of_base, *of_further]
    assert len(different) == 6
    for i, a in enumerate(different):
        assert not any(torch.equal(a, b) for b in different[:i])
        assert abs(float(a.std()) - 1) < 0.3
    assert distance(base, trained, two) > TOLERANCE  # The network was in use,
    assert not (further / image_name(two[0][1], 0)).exists()  # and indices are told apart.


def test_noise_depends_on_seed_prompt_and_index_alone() -> None:
    def draw(seed: int, prompt: str, index: int) -> tuple[float, ...]:
        noise = torch.randn(4, generator=image_generator(seed, prompt, index))
        return tuple(noise.tolist())

    keys = [(s, p, i) for s in (0, 1) for p in ("a", "b") for i in (0, 1, 10)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(0, "a", 1) == draw(0, "a", 1)


def test_an_image_takes_its_noise_from_its_key_whatever_its_prompt(
    noises: list[torch.Tensor],
) -> None:
    settings = Generate(steps=1, guidance=1.0, seed=5)
    keys = [("pairs: owl", 3), ("owl", 3), ("pairs: owl", 3)]
    pipeline = load_pipeline(model_folder("mini-sd"), None, settings.sampler)
    images = draw(pipeline, ["owl", "owl", "red fox"], keys, settings)
    assert [image.size for image in images] == [(64, 64)] * 3
    for noise, key in zip(noises, keys, strict=True):
        expected = torch.randn(noise.shape, generator=image_generator(5, *key))
        assert torch.equal(noise, expected)
    assert not torch.equal(noises[0], noises[1])


@pytest.mark.parametrize(
    "prompt",
    ["../../etc/passwd", "a/b\\c", "nul\0byte", "line\nbreak", "x" * 9999, "", "é 🐈", "."],
)
def test_file_names_are_safe_for_any_prompt(prompt: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{16}_7\.png", image_name(prompt, 7))


def test_file_names_tell_prompts_apart() -> None:
    names = {image_name(p, k) for p in ("a cat", "a  cat", "A cat", "a cat ") for k in (0, 1)}
    assert len(names) == 8


def test_a_resumed_set_has_the_same_bytes(make: Make, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    shutil.copytree(undisturbed, folder)
    (folder / INDEX).unlink()
    # Batches of 2: the last batch is lost, and half of the first.
    lost = [PROMPTS[4][1], PROMPTS[1][1]]
    kept = folder / image_name(PROMPTS[2][1], 0)
    for prompt in lost:
        (folder / image_name(prompt, 0)).unlink()
    made_at = kept.stat().st_mtime_ns
    make(folder=folder)
    assert kept.stat().st_mtime_ns == made_at
    for path in undisturbed.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


def quiet() -> Console:
    return Console(quiet=True)


def test_a_folder_of_images_is_taken_up_only_with_the_same_settings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = Generate(steps=1, guidance=1.0)
    generate_images("mini-sd", None, "mini-dev", 1, settings, out, quiet())
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    generate_images("mini-sd", None, "mini-dev", 1, settings, out, quiet())
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    other = settings.model_copy(update={"seed": 1})
    with pytest.raises(UserError, match="holds images of other settings"):
        generate_images("mini-sd", None, "mini-dev", 1, other, out, quiet())
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """The key of every image that is drawn."""
    keys: list[Key] = []

    def spy(pipeline: Any, prompts: Any, part: list[Key], settings: Generate) -> Any:
        keys.extend(part)
        return draw(pipeline, prompts, part, settings)

    monkeypatch.setattr("bench.stages.generate.draw", spy)
    return keys


def test_a_folder_of_images_goes_on_with_more_of_them(tmp_path: Path, drawn: list[Key]) -> None:
    """More prompts, or more images of each: what is new is drawn, and the rest stays as it is."""
    out = tmp_path / "out"
    one = Generate(steps=1, guidance=1.0, batch_size=2)
    two = one.model_copy(update={"images_per_prompt": 2})

    def go(limit: int, settings: Generate) -> list[Key]:
        before = {p: p.read_bytes() for p in out.glob("*.png")}
        drawn.clear()
        generate_images("mini-sd", None, "mini-dev", limit, settings, out, quiet())
        assert all(path.read_bytes() == data for path, data in before.items())
        return list(drawn)

    texts = [prompt for _, prompt in PROMPTS]
    assert go(3, one) == [(text, 0) for text in texts[:3]]
    assert go(5, one) == [(text, 0) for text in texts[3:]]
    assert go(5, two) == [(text, 1) for text in texts]
    assert go(3, one) == []
    assert len(read_index(out)) == 10


def swap(path: Path) -> None:
    """A valid picture that was not drawn there."""
    Image.new("RGB", (64, 64), "red").save(path)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


Damage = Callable[[Path], Any]
DAMAGES = [Path.unlink, swap, pipe, lambda path: path.write_bytes(path.read_bytes()[:-9])]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("finished", [True, False])
def test_an_image_that_is_not_as_it_was_written_is_made_again(
    make: Make,
    undisturbed: Path,
    tmp_path: Path,
    drawn: list[Key],
    capfd: pytest.CaptureFixture[str],
    damage: Damage,
    finished: bool,
) -> None:
    """To the bit: in the batch that it was drawn in, also when more were asked for since."""
    folder = tmp_path / "damaged"
    shutil.copytree(undisturbed, folder)
    if finished:
        make(folder=folder, prompts=load_prompts("mini-dev", 6).items)
    else:
        (folder / INDEX).unlink()
    lost = PROMPTS[1][1], 0
    damage(folder / image_name(*lost))
    drawn.clear()
    capfd.readouterr()
    make(folder=folder)
    told = capfd.readouterr().err
    assert drawn == [(PROMPTS[0][1], 0), lost]
    assert told.count("1 images are not what was written there") == (damage is not Path.unlink)
    for path in undisturbed.glob("*.png"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert {row["prompt"] for row in read_index(folder)} >= {prompt for _, prompt in PROMPTS}


@pytest.mark.parametrize("name", [INDEX, SEALS])
def test_images_are_found_by_either_record_of_them(
    make: Make, undisturbed: Path, tmp_path: Path, drawn: list[Key], name: str
) -> None:
    """A flip in any byte of one costs nothing, or what is drawn is the same again."""
    size = (undisturbed / name).stat().st_size
    for place in range(3, size, size // 9):
        folder = tmp_path / str(place)
        shutil.copytree(undisturbed, folder)
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 4
        (folder / name).write_bytes(data)
        drawn.clear()
        make(folder=folder)
        assert not drawn
        for path in undisturbed.glob("*.png"):
            assert (folder / path.name).read_bytes() == path.read_bytes()
        there, here = ([row | {"batch": 0} for row in read_index(f)] for f in (undisturbed, folder))
        assert there == here


def test_an_image_that_another_process_has_written_stays(tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        add_image(Seals(tmp_path / SEALS), ("a", 0), Image.new("RGB", (1, 1), colour))
    with Image.open(tmp_path / image_name("a", 0)) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0)
    for prompt in ("a", "b"):  # Each process knows of its own alone.
        digest = add_image(Seals(tmp_path / SEALS), (prompt, 0), Image.new("RGB", (1, 1)))
        assert digest == sha256_file(tmp_path / image_name(prompt, 0))
        extend_index(tmp_path, {(prompt, 0): digest})
    assert {row["prompt"] for row in read_index(tmp_path)} == {"a", "b"}


def test_a_network_without_a_unet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a folder with a trained 'unet' in it"):
        generate_images("mini-sd", tmp_path, "mini-dev", 1, Generate(), tmp_path / "out", quiet())
    assert not (tmp_path / "out").exists()


def overflowing(folder: Path) -> Path:
    """A model whose last decoder block reaches 1e6, which the group norm after it undoes."""
    shutil.copytree(model_folder("mini-sd"), folder)
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        if re.match(r"decoder\.up_blocks\.3\.resnets\.1\.conv2\.", name):
            tensors[name] = tensors[name] * 3e4
    save_file(tensors, path, {"format": "pt"})
    return folder


def test_an_image_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    """An autoencoder that overflows in float16: the image is named, and the way out works."""
    base, chosen = overflowing(tmp_path / "model"), {"steps": 2, "batch_size": 2}
    texts = [prompt for _, prompt in PROMPTS]

    def make(dtype: str) -> None:
        settings = Generate(dtype=dtype, **chosen)
        write_images(base, None, "stable-diffusion", texts, settings, tmp_path / dtype, lambda _: 0)

    message = f"image 0 of prompt {texts[0]!r}: .* the autoencoder gave NaN or infinities in float"
    with pytest.raises(UserError, match=message + "16: .* to bfloat16 or float32"):
        make("float16")
    assert not list((tmp_path / "float16").glob("*.png"))
    for way_out in ("float32", "bfloat16"):
        make(way_out)
        assert all(pixels(tmp_path / way_out, text).mean() > 10 for text in texts)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("source", ["sampler", "autoencoder"])
def test_the_image_and_the_part_at_fault_are_named(
    monkeypatch: pytest.MonkeyPatch, source: str, value: float
) -> None:
    """One value of the second image is enough; an infinity alone would be clamped to white."""
    pipeline = load_pipeline(model_folder("mini-sd"), None, "ddim")
    part = pipeline.vae.post_quant_conv if source == "sampler" else pipeline.vae.decoder.conv_out
    forward = part.forward

    def spoilt(values: Any) -> Any:
        made = forward(values)
        made[1, 0, 0, 0] = value
        return made

    monkeypatch.setattr(part, "forward", spoilt)
    texts = [prompt for _, prompt in PROMPTS[:3]]
    keys = [(text, 7) for text in texts]
    message = rf"image 7 of prompt {texts[1]!r}: .* the {source} gave NaN .* in float32: lower the"
    with pytest.raises(UserError, match=message):
        draw(pipeline, texts, keys, Generate(steps=2))
    monkeypatch.setattr(part, "forward", forward)
    assert len(draw(pipeline, texts, keys, Generate(steps=2))) == 3


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++"])
@pytest.mark.parametrize("timesteps", [1000, 10])
def test_more_steps_than_the_model_has_are_refused(
    tmp_path: Path, sampler: str, timesteps: int
) -> None:
    """Leading steps and their offset pass the last timestep even where as many are asked for."""
    base = tmp_path / "model"
    shutil.copytree(model_folder("mini-sd"), base)
    path = base / "scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_train_timesteps": timesteps}))
    pipeline = load_pipeline(base, None, sampler)
    with pytest.raises(UserError, match=f"a model of {timesteps} training timesteps, got 1000$"):
        draw(pipeline, ["owl"], [("owl", 0)], Generate(sampler=sampler, steps=1000))
