"""Adapters that do not belong, by every way to use one: each is refused, by name, before images."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.export.folder import export
from bench.images.draw import load_pipeline
from trainers.backbones import BACKBONES
from trainers.backbones.adapters import METADATA
from trainers.backbones.base import ADAPTER_FILE
from trainers.errors import UserError

Tensors = dict[str, Tensor]
Use = Callable[[Path, Path], object]
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OTHER = LAYER.replace("to_q", "to_k")
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


def halves(layer: str = LAYER, rank: int = 2, inner: int = 8, outer: int = 8) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{layer}.lora_A.weight": torch.randn(rank, inner, generator=generator),
        f"{layer}.lora_B.weight": torch.randn(outer, rank, generator=generator),
    }


def write(folder: Path, tensors: Tensors, **settings: Any) -> Path:
    folder.mkdir()
    told = {f"unet.{key}": value for key, value in settings.items()}
    metadata = {METADATA: json.dumps(told)} if settings else None
    save_file(tensors, folder / ADAPTER_FILE, metadata)
    return folder


def draws(base: Path, network: Path) -> object:
    return load_pipeline(base, network, "ddim")


def exports(base: Path, network: Path) -> object:
    return export(base, network, network.parent / "whole")


def renamed(old: str, new: str) -> Tensors:
    return {key.replace(old, new): value for key, value in halves().items()}


SETTINGS: dict[str, Any] = {"r": 2, "lora_alpha": 4, "target_modules": ["attn1.to_q"]}
WRONG: dict[str, tuple[Tensors, dict[str, Any], str]] = {
    "no prefix": (renamed("unet.", ""), {}, r"tensors called unet\..*got one of down_blocks"),
    "another part": (renamed("unet.", "transformer."), {}, "got one of transformer"),
    "peft": (renamed("unet.", "base_model.model."), {}, "got one of base_model"),
    "peft in unet": (renamed("unet.", "unet.base_model.model."), {}, "no layer base_model"),
    "default": (renamed(".weight", ".default.weight"), {}, r"called .*lora_A\.default\.weight"),
    "text": (halves() | renamed("unet.", "text_encoder."), {}, "got one of text_encoder"),
    "up and down": (renamed("lora_", "lora.up_"), {}, "write it anew with save_lora_weights"),
    "alpha": (halves() | {f"{LAYER}.alpha": torch.ones(())}, {}, rf"called {LAYER}\.alpha"),
    "no layer": (renamed("to_q", "to_x"), {}, "there is no layer .*to_x"),
    "no linear layer": (renamed("attn1.to_q", "norm1"), {}, "there is no layer .*norm1"),
    "inputs": (halves(inner=64), {}, "to_q with 64 inputs, but it has 8"),
    "outputs": (halves(outer=64), {}, "to_q with 64 outputs, but it has 8"),
    "ranks": (halves() | {B: torch.zeros(8, 3)}, {}, r"A and B of one rank .* \[8, 3\]"),
    "no matrix": (halves() | {A: torch.zeros(8)}, {}, "A and B of one rank"),
    "A alone": ({A: halves()[A]}, {}, "lora_A and lora_B of each layer, got .*lora_A.weight alone"),
    "B alone": ({B: halves()[B]}, {}, "got .*lora_B.weight alone"),
    "NaN": (halves() | {A: torch.full((2, 8), torch.nan)}, {}, rf"NaN or infinite values in {A}"),
    "infinity": (halves() | {B: torch.full((8, 2), torch.inf)}, {}, f"infinite values in {B}"),
    "nothing": ({}, {}, "expected an adapter, got no tensors"),
    "rank": (halves(), SETTINGS | {"r": 4}, "tensors of rank 4 as its settings say, got 2"),
    "alpha zero": (halves(), SETTINGS | {"lora_alpha": 0}, "expected a number above 0, got 0"),
    "alpha negative": (halves(), SETTINGS | {"lora_alpha": -4}, "above 0, got -4"),
    "alpha text": (halves(), SETTINGS | {"lora_alpha": "4"}, "above 0, got '4'"),
    "no alpha": (halves(), {"r": 2, "target_modules": ["to_q"]}, "lora_alpha: .* got None"),
    "dora": (halves(), SETTINGS | {"use_dora": True}, "got use_dora True: merge it with peft"),
}  # fmt: skip


@pytest.mark.parametrize("use", [draws, exports])
@pytest.mark.parametrize("name", WRONG)
def test_an_adapter_that_does_not_belong_is_refused(
    model_folder: Path, tmp_path: Path, name: str, use: Use
) -> None:
    """Rather than applied in part, or not at all; nothing is left behind."""
    tensors, settings, message = WRONG[name]
    network = write(tmp_path / "run", tensors, **settings)
    with pytest.raises(UserError, match=message):
        use(model_folder, network)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("use", [draws, exports])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"", "cut short or another"),
        (b"PK\x03\x04" * 100, "cut short or another"),
    ],
)
def test_a_file_that_is_no_adapter_is_refused(
    model_folder: Path, tmp_path: Path, use: Use, content: bytes, message: str
) -> None:
    network = write(tmp_path / "run", halves())
    (network / ADAPTER_FILE).write_bytes(content)
    with pytest.raises(UserError, match=message):
        use(model_folder, network)


@pytest.mark.parametrize("use", [draws, exports])
def test_an_adapter_needs_peft(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    network = write(tmp_path / "run", halves())
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"peft, which is not installed: pip install"):
        use(model_folder, network)


@pytest.mark.parametrize(
    ("settings", "scale"), [({}, 1.0), (SETTINGS, 2.0), (SETTINGS | {"use_rslora": True}, 8**0.5)]
)
def test_what_belongs_is_added_to_the_weight(
    model_folder: Path, tmp_path: Path, settings: dict[str, Any], scale: float
) -> None:
    """W + alpha / rank B A, without settings B A (rsLoRA: alpha / sqrt(rank)); nothing else."""
    network = write(tmp_path / "run", halves(), **settings)
    exports(model_folder, network)
    merged = load_file(tmp_path / "whole/unet/diffusion_pytorch_model.safetensors")
    before = load_file(model_folder / "unet/diffusion_pytorch_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    name = f"{LAYER}.weight".removeprefix("unet.")
    assert changed == {name}
    expected = before[name] + scale * halves()[B] @ halves()[A]
    torch.testing.assert_close(merged[name], expected, rtol=1e-5, atol=1e-5)


def test_what_a_library_leaves_out_is_seen(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads the adapter: it must be in the network in the end."""
    network = write(tmp_path / "run", halves())
    monkeypatch.setattr(UNet2DConditionModel, "load_lora_adapter", lambda *_, **__: None)
    with pytest.raises(UserError, match=r"expected every tensor to land on a layer, .*to_q.lora_A"):
        draws(model_folder, network)


def test_a_convolution_is_adapted_too(model_folder: Path, tmp_path: Path) -> None:
    a, b = torch.randn(2, 4, 3, 3), torch.randn(8, 2, 1, 1)
    names = ("unet.conv_in.lora_A.weight", "unet.conv_in.lora_B.weight")
    network = write(tmp_path / "run", dict(zip(names, (a, b), strict=True)))
    exports(model_folder, network)
    merged = load_file(tmp_path / "whole/unet/diffusion_pytorch_model.safetensors")
    before = load_file(model_folder / "unet/diffusion_pytorch_model.safetensors")
    expected = before["conv_in.weight"] + torch.einsum("or,rihw->oihw", b[:, :, 0, 0], a)
    torch.testing.assert_close(merged["conv_in.weight"], expected, rtol=1e-5, atol=1e-5)


def test_a_network_of_another_model_is_refused(model_folder: Path, tmp_path: Path) -> None:
    """By the setting that differs, before its weights are read."""
    backbone = BACKBONES.get("stable-diffusion")(model_folder)
    backbone.save_network(backbone.load_network(), tmp_path / "run")
    config = tmp_path / "run/unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_num_groups": 2}))
    for use in (draws, exports):
        with pytest.raises(UserError, match=r"trained from .* whose norm_num_groups is 4, got 2"):
            use(model_folder, tmp_path / "run")


def test_a_trained_network_with_nan_is_refused(model_folder: Path, tmp_path: Path) -> None:
    backbone = BACKBONES.get("stable-diffusion")(model_folder)
    network = backbone.load_network()
    next(network.parameters()).data.view(-1)[7] = torch.nan
    backbone.save_network(network, tmp_path / "run")
    for use in (draws, exports):
        with pytest.raises(UserError, match=r"NaN or infinite values in conv_in.weight"):
            use(model_folder, tmp_path / "run")
