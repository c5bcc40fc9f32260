"""Images of every backbone, by every sampler that fits, and trained models as whole folders."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from numpy.typing import NDArray
from PIL import Image

from bench.cli import run
from bench.images.draw import image_generator
from bench.images.folder import image_name
from bench.images.samplers import SAMPLERS
from bench.spec.model import Generate
from bench.stages.generate import GenerateStage, write_images
from trainers.backbones import Backbone
from trainers.errors import UserError
from trainers.files import tree_hashes

SD, XL, SD3 = "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3"
PIPELINES = {
    SD: StableDiffusionPipeline,
    XL: StableDiffusionXLPipeline,
    SD3: StableDiffusion3Pipeline,
}
SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "flow-euler": FlowMatchEulerDiscreteScheduler,
}
FITTING = {
    SD: ("ddim", "euler", "dpm++"),
    XL: ("ddim", "euler", "dpm++"),
    SD3: ("flow-euler",),
}
PROMPTS = ("owl", "red fox")
Make = Callable[..., dict[str, NDArray[np.uint8]]]


def stage(backbone: str, folder: Path, **settings: Any) -> GenerateStage:
    chosen = Generate(**({"steps": 3, "guidance": 4.0} | settings))
    prompts = tuple((p, p) for p in PROMPTS)
    return GenerateStage("images", chosen, 0, prompts, backbone, folder, "0" * 64, None)


def write(backbone: str, folder: Path, network: Path | None, out: Path, **settings: Any) -> None:
    chosen = stage(backbone, folder, **settings).settings
    write_images(folder, network, backbone, PROMPTS, chosen, out, lambda _: None)


@pytest.fixture
def make(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The pixels of one image per prompt."""

    def run(backbone: str, network: Path | None = None, **settings: Any) -> Any:
        out = tmp_path_factory.mktemp("images")
        write(backbone, folders[backbone], network, out, **settings)
        return {p: np.asarray(Image.open(out / image_name(p, 0))) for p in PROMPTS}

    return run


def sampled(pipeline: Any, **settings: Any) -> dict[str, NDArray[np.uint8]]:
    """By a plain call of a pipeline."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        list(PROMPTS),
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=[image_generator(0, prompt, 0) for prompt in PROMPTS],
        **settings,
    ).images
    return {prompt: np.asarray(image) for prompt, image in zip(PROMPTS, images, strict=True)}


def same(first: dict[str, NDArray[np.uint8]], second: dict[str, NDArray[np.uint8]]) -> bool:
    return all(np.array_equal(first[p], second[p]) for p in PROMPTS)


@pytest.mark.parametrize(("backbone", "sampler"), [(b, s) for b in FITTING for s in FITTING[b]])
def test_images_are_those_of_diffusers(
    make: Make, folders: dict[str, Path], backbone: str, sampler: str
) -> None:
    """To the bit: the plain pipeline with the scheduler in the place of its own."""
    pipeline = PIPELINES[backbone].from_pretrained(folders[backbone])
    pipeline.scheduler = SCHEDULERS[sampler].from_config(pipeline.scheduler.config)
    if sampler == "ddim":
        pipeline.scheduler.register_to_config(clip_sample=False)
    images = make(backbone, sampler=sampler)
    assert same(images, sampled(pipeline))
    assert images["owl"].shape == (32, 32, 3)
    assert not np.array_equal(images["owl"], images["red fox"])


def test_samplers_differ(make: Make) -> None:
    """Each is really another."""
    images = [make(SD, sampler=name, steps=4)["owl"] for name in FITTING[SD]]
    assert len({image.tobytes() for image in images}) == 3


def test_every_sampler_is_tested_above() -> None:
    assert {name for names in FITTING.values() for name in names} == set(SAMPLERS)


@pytest.mark.parametrize(
    ("backbone", "sampler", "instead"),
    [
        (SD, "flow-euler", "ddim or euler or dpm\\+\\+"),
        (XL, "flow-euler", "ddim or euler or dpm\\+\\+"),
        (SD3, "ddim", "flow-euler"),
        (SD3, "dpm++", "flow-euler"),
        (SD, "dimm", "ddim or euler or dpm\\+\\+"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused(backbone: str, sampler: str, instead: str) -> None:
    """When the stage is laid out, before the model is even looked for."""
    with pytest.raises(UserError, match=f"'{backbone}': set generate.sampler to {instead}$"):
        stage(backbone, Path("nowhere"), sampler=sampler)


@pytest.mark.parametrize(
    ("backbone", "sampler", "mend"),
    [(SD, "euler", "0, or generate.sampler to ddim"), (SD3, "flow-euler", "0")],
)
def test_eta_with_a_sampler_that_takes_none_is_refused(
    backbone: str, sampler: str, mend: str
) -> None:
    with pytest.raises(UserError, match=f"'{sampler}' takes no eta: set generate.eta to {mend}$"):
        stage(backbone, Path("nowhere"), sampler=sampler, eta=0.5)


def test_eta_is_fresh_noise_of_the_image_itself(make: Make) -> None:
    """It changes the image, and the batch does not change it."""
    fresh = make(XL, eta=1.0)
    assert not same(fresh, make(XL))
    alone = make(XL, eta=1.0, batch_size=1)
    assert all(np.abs(alone[p].astype(int) - fresh[p]).max() <= 2 for p in PROMPTS)


@pytest.mark.parametrize("backbone", FITTING)
def test_size_and_precision(make: Make, backbone: str) -> None:
    """Half the precision is another image, though hardly; the size is that asked for."""
    settings = {"sampler": FITTING[backbone][-1], "steps": 2}
    full, half = (make(backbone, dtype=dtype, **settings) for dtype in ("float32", "bfloat16"))
    difference = np.abs(full["owl"].astype(int) - half["owl"])
    assert difference.max() > 0
    assert difference.mean() < 8
    assert make(backbone, height=16, width=32, **settings)["owl"].shape == (16, 32, 3)


def test_sd3_without_t5(sd3_without_t5: Path, tmp_path: Path) -> None:
    """Its index names an encoder that is not there."""
    write(SD3, sd3_without_t5, None, tmp_path, sampler="flow-euler")
    assert (tmp_path / image_name("owl", 0)).is_file()


@pytest.mark.parametrize("backbone", FITTING)
def test_an_exported_model_is_the_network_in_memory(
    make: Make,
    folders: dict[str, Path],
    backbones: dict[str, Backbone],
    tmp_path: Path,
    backbone: str,
) -> None:
    """The folder needs nothing but diffusers, and draws what the trained network draws."""
    model = backbones[backbone]
    network = model.load_network()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(0.9)
    model.save_network(network, tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--base", str(folders[backbone])]
    assert run(["export", *arguments, "--out", str(tmp_path / "whole")]) == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []

    memory = PIPELINES[backbone].from_pretrained(folders[backbone])
    setattr(memory, model.network_part, network.eval())
    expected = sampled(memory)
    exported = DiffusionPipeline.from_pretrained(tmp_path / "whole")
    assert type(exported) is PIPELINES[backbone]
    assert same(sampled(exported), expected)
    base = DiffusionPipeline.from_pretrained(folders[backbone])
    assert not same(sampled(base), expected)

    sampler = FITTING[backbone][0]
    with_network = make(backbone, tmp_path / "run", sampler=sampler)
    assert not same(with_network, make(backbone, sampler=sampler))


def test_an_export_leaves_all_other_parts_as_they_are(
    backbones: dict[str, Backbone], xl_folder: Path, tmp_path: Path
) -> None:
    """Byte for byte."""
    model = backbones[XL]
    model.save_network(model.load_network(), tmp_path / "run")
    assert run(["export", str(tmp_path / "run"), "--base", str(xl_folder),
                "--out", str(tmp_path / "whole")]) == 0  # fmt: skip
    for part in ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"):
        assert tree_hashes(tmp_path / "whole" / part) == tree_hashes(xl_folder / part)


@pytest.mark.parametrize(
    ("network", "base", "out", "message"),
    [
        ("empty", XL, "new", "expected a folder with a trained network"),
        ("run", "empty", "new", "there is no .*model_index.json"),
        ("run", XL, "empty", "exists: name a new folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    backbones: dict[str, Backbone],
    xl_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    network: str,
    base: str,
    out: str,
    message: str,
) -> None:
    """And nothing is left behind."""
    (tmp_path / "empty").mkdir()
    backbones[XL].save_network(backbones[XL].load_network(), tmp_path / "run")
    folder = xl_folder if base == XL else tmp_path / base
    code = run(["export", str(tmp_path / network), "--base", str(folder),
                "--out", str(tmp_path / out)])  # fmt: skip
    assert code == 1
    assert re.search(message, capsys.readouterr().err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "run"]
