"""Weights as published folders hold them: in half precision alone, in several files, as pickles."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from bench.export.folder import export
from bench.images.draw import load_pipeline
from trainers.backbones import BACKBONES, Backbone
from trainers.errors import UserError

SAMPLERS = {
    "stable-diffusion": "ddim",
    "stable-diffusion-xl": "ddim",
    "stable-diffusion-3": "flow-euler",
}
Publish = Callable[..., Path]


@pytest.fixture(params=SAMPLERS)
def name(request: pytest.FixtureRequest) -> str:
    """A backbone."""
    return str(request.param)


@pytest.fixture
def publish(name: str, folders: dict[str, Path], tmp_path: Path) -> Publish:
    """The backbone's model written by diffusers, in some precision, with options."""

    def write(dtype: torch.dtype = torch.float32, **options: Any) -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        pipeline = DiffusionPipeline.from_pretrained(folders[name]).to(dtype)
        pipeline.save_pretrained(folder, **options)
        return folder

    return write


def weights(folder: Path) -> list[str]:
    """The files with weights, or their indices, by place."""
    found = (p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors*"))
    return sorted(found)


ROUNDING = 2.0**-15
"""Of the largest value: fewer than ten layers add up to 32 terms, so fewer than 512 roundings of
2^-24. Where a tensor lies in its file decides how it is aligned in memory, and that the order of a
sum. Weights read in half precision would be off by 2^-11 each."""


def everything(backbone: Backbone) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the weights of the encoders decide, and the network's weights."""
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    condition = backbone.encode_prompts(["owl"])
    moments = backbone.encode_images(pixels)
    network = backbone.load_network()
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    return {**condition, **moments._asdict()}, network.state_dict()


def different(one: Backbone, two: Backbone) -> set[str]:
    """Weights that are not equal, and values that are further apart than rounding."""
    (values, weights), (others, other_weights) = everything(one), everything(two)
    assert (values.keys(), weights.keys()) == (others.keys(), other_weights.keys())
    apart = {k for k, v in values.items() if (v - others[k]).abs().max() > ROUNDING * v.abs().max()}
    return apart | {k for k, v in weights.items() if not torch.equal(v, other_weights[k])}


def sampled(folder: Path, name: str) -> tuple[Any, dict[str, Tensor]]:
    """A picture, and the weights of all parts that it was drawn by."""
    pipeline = load_pipeline(folder, None, SAMPLERS[name], name)
    assert pipeline.text_encoder.dtype == pipeline.vae.dtype == torch.float32
    generator = torch.Generator().manual_seed(0)
    image = pipeline("owl", num_inference_steps=2, generator=generator).images[0]
    parts = {k: v for k, v in pipeline.components.items() if isinstance(v, nn.Module)}
    return np.asarray(image).astype(int), nn.ModuleDict(parts).state_dict()


def expect_same(name: str, first: Path, second: Path) -> None:
    """In training and in sampling: weights to the bit, and a pixel may round to the next level."""
    make = BACKBONES.get(name)
    assert different(make(first), make(second)) == set()
    (image, weights), (other, others) = sampled(first, name), sampled(second, name)
    assert np.abs(image - other).max() <= 1
    assert weights.keys() == others.keys()
    assert all(torch.equal(weight, others[key]) for key, weight in weights.items())


def test_weights_in_half_precision_alone(name: str, publish: Publish, tmp_path: Path) -> None:
    """They are read into float32: the same as from files with the same numbers and plain names."""
    half, plain = publish(torch.float16, variant="fp16"), publish(torch.float16)
    assert all(".fp16." in file for file in weights(half))
    expect_same(name, half, plain)


def test_the_whole_precision_is_read_where_it_is(
    name: str, publish: Publish, folders: dict[str, Path]
) -> None:
    """A part with both is the plain one; only a part that has no other is in half precision."""
    both, half = publish(torch.float32), publish(torch.float16, variant="fp16")
    shutil.copytree(half, both, dirs_exist_ok=True)
    expect_same(name, both, folders[name])
    (both / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    make = BACKBONES.get(name)
    assert different(make(both), make(folders[name])) == {"mean", "std"}


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}])
def test_weights_in_several_files(name: str, publish: Publish, options: dict[str, Any]) -> None:
    """An index says which tensor is in which of them."""
    dtype = torch.float16 if options else torch.float32
    many, one = publish(dtype, max_shard_size="20KB", **options), publish(dtype)
    part = BACKBONES.get(name).network_part
    assert len(list((many / part).glob("*-of-*.safetensors"))) > 1
    assert len(list((many / part).glob("*.index*.json"))) == 1
    expect_same(name, many, one)


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}])
def test_an_export_of_half_precision_is_read_by_its_plain_names(
    name: str,
    publish: Publish,
    backbones: dict[str, Backbone],
    tmp_path: Path,
    options: dict[str, Any],
) -> None:
    """Beside the trained network, which is in float32: a pipeline knows one variant for all."""
    base = publish(torch.float16, variant="fp16", **options)
    backbones[name].save_network(backbones[name].load_network(), tmp_path / "run")
    export(base, tmp_path / "run", tmp_path / "whole")
    assert not [file for file in weights(tmp_path / "whole") if "fp16" in file]
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    plain = DiffusionPipeline.from_pretrained(publish(torch.float16), dtype=torch.float32)
    for part in ("vae", "text_encoder"):
        got, expected = (getattr(p, part).state_dict() for p in (pipeline, plain))
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_pickle_is_never_read(name: str, publish: Publish, folders: dict[str, Path]) -> None:
    """Beside safetensors it is left alone; without them the model is refused, with what to do."""
    folder = publish()
    part = folder / BACKBONES.get(name).network_part
    for file in (part / "diffusion_pytorch_model.bin", folder / "text_encoder/pytorch_model.bin"):
        file.write_bytes(b"no weights")
    expect_same(name, folder, folders[name])
    (part / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"\.bin, which can run code when .* write it anew with"):
        BACKBONES.get(name)(folder)
    (part / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=rf"expected weights in {part}, .*, got none: give"):
        BACKBONES.get(name)(folder)


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}, {"variant": "fp16"}])
def test_a_model_is_identified_by_the_files_that_are_read(
    name: str, publish: Publish, tmp_path: Path, options: dict[str, Any]
) -> None:
    """By each of them: a folder of these alone is the same model. Others come and go."""
    folder = publish(torch.float16 if options else torch.float32, **options)
    kind, copy = BACKBONES.get(name), tmp_path / "copy"
    identity = kind(folder).sha256()
    if "variant" not in options:
        half = publish(torch.float16, variant="fp16")
        for file in weights(half):
            shutil.copyfile(half / file, folder / file)
    for extra in ("README.md", "whole.safetensors", "tokenizer/README.md", "vae/pytorch_model.bin"):
        (folder / extra).write_text("not read")
    files = kind(folder).files()
    for file, path in files.items():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy / file)
    assert kind(folder).sha256() == kind(copy).sha256() == identity
    expect_same(name, folder, copy)
    for file in files:
        whole = (copy / file).read_bytes()
        # Changes that neither JSON nor the header of safetensors sees.
        text = not file.endswith(".safetensors")
        (copy / file).write_bytes(whole + b"\n" if text else whole[:-1] + bytes([whole[-1] ^ 1]))
        assert kind(copy).sha256() != identity
        (copy / file).write_bytes(whole)
