"""Damaged and hostile model folders: one line, by the name of what is wrong, or the same model.

Every way to read a model is taken: its identity, its check, its pipeline.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.cli import run
from bench.images.draw import load_pipeline
from trainers.backbones import BACKBONES
from trainers.errors import UserError

SD, XL, SD3 = "stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3"
SAMPLERS = {SD: "ddim", XL: "euler", SD3: "flow-euler"}
PARTS = {
    SD: ["unet", "vae", "text_encoder"],
    XL: ["unet", "vae", "text_encoder", "text_encoder_2"],
    SD3: ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"],
}
EVERY = [(name, part) for name, parts in PARTS.items() for part in parts]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
Copy = Callable[[str], Path]
Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Copy:
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / "model"))


def use(name: str, folder: Path) -> None:
    """All that a model is read for."""
    backbone = BACKBONES.get(name)(folder)
    backbone.sha256()
    backbone.check("float32")
    load_pipeline(folder, None, SAMPLERS[name], name)


def refused(name: str, folder: Path, message: str = "") -> str:
    """The line, which says what was expected and fits onto one."""
    with pytest.raises(UserError, match=message) as caught:
        use(name, folder)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 900
    return line


def weights(folder: Path, part: str) -> Path:
    (path,) = (folder / part).glob("*.safetensors")
    return path


def edited(folder: Path, file: str, **changes: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def kind(tensor: str) -> str:
    """Tensors of one kind differ by the numbers in their names alone."""
    return ".".join("#" if word.isdigit() else word for word in tensor.split("."))


def each_kind(tensors: dict[str, Tensor]) -> list[str]:
    return sorted({kind(name): name for name in sorted(tensors, reverse=True)}.values())


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_a_tensor_of_any_kind_is_missed(copied: Copy, name: str, part: str) -> None:
    """Dropped, it is named; under another name, both are."""
    folder = copied(name)
    path = weights(folder, part)
    whole = load_file(path)
    for tensor in each_kind(whole)[::6]:
        save_file({n: t for n, t in whole.items() if n != tensor}, path, {"format": "pt"})
        line = refused(name, folder, rf"{part}: expected exactly the tensors|{part}/config.json")
        assert tensor in line or f"{part}/config.json" in line
    tensor = min(whole)
    save_file({f"{n}x" if n == tensor else n: t for n, t in whole.items()}, path, {"format": "pt"})
    refused(name, folder, rf"without 1 tensors.*{tensor}.* with other 1 .*{tensor}x")


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_tensors_that_the_model_does_not_have_are_refused(
    copied: Copy, name: str, part: str
) -> None:
    folder = copied(name)
    path = weights(folder, part)
    save_file(load_file(path) | {"planted.weight": torch.ones(2)}, path, {"format": "pt"})
    refused(name, folder, r"planted\.weight")


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_values_that_are_not_finite_are_refused(copied: Copy, name: str, part: str) -> None:
    folder = copied(name)
    path = weights(folder, part)
    whole = load_file(path)
    for tensor, value in zip((min(whole), max(whole)), (torch.nan, torch.inf), strict=True):
        spoilt = whole[tensor].clone()
        spoilt.view(-1)[-1] = value
        save_file(whole | {tensor: spoilt}, path, {"format": "pt"})
        refused(name, folder, rf"infinite values in {tensor}: the file is damaged")


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_tensors_of_another_shape_are_refused(copied: Copy, name: str, part: str) -> None:
    folder = copied(name)
    path = weights(folder, part)
    whole = load_file(path)
    for tensor in each_kind(whole)[::9]:
        if whole[tensor].dim():
            longer = torch.cat([whole[tensor], whole[tensor][:1]])
            save_file(whole | {tensor: longer}, path, {"format": "pt"})
            refused(name, folder)


@pytest.mark.parametrize(("name", "part"), EVERY)
@pytest.mark.parametrize("content", [POINTER, b"", b"PK\x03\x04" * 9, b"\xff" * 99, None])
def test_damaged_weights_are_refused(
    copied: Copy, name: str, part: str, content: bytes | None
) -> None:
    """A pointer of Git LFS, nothing, an archive, noise, or the first half."""
    folder = copied(name)
    path = weights(folder, part)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = "pointer of Git LFS" if content == POINTER else "expected tensors as safetensors"
    refused(name, folder, rf"{path}: .*{message}")


@pytest.mark.parametrize("name", PARTS)
def test_every_file_that_is_deleted_or_damaged_is_missed(copied: Copy, name: str) -> None:
    """Of those that are read; a folder without one of them is never another model in silence."""
    folder = copied(name)
    files = BACKBONES.get(name)(folder).files()
    for file, path in files.items():
        content = path.read_bytes()
        path.unlink()
        refused(name, folder)
        for damaged in (POINTER, b"[]", b"{", b"\xff\xfe{\0}\0", b'{"a": 1, "a": 2}'):
            path.write_bytes(damaged)
            line = refused(name, folder)
            assert "oid sha256" not in line, "a message never shows what a file holds"
        path.write_bytes(content)
        assert file in files
    use(name, folder)


CONFIGS: list[tuple[str, str, dict[str, Any], str]] = [
    (SD, "text_encoder/config.json", {"num_hidden_layers": 0}, "num_hidden_layers: expected 1"),
    (SD, "text_encoder/config.json", {"num_hidden_layers": 2}, "num_hidden_layers: expected 1"),
    (SD, "text_encoder/config.json", {"num_hidden_layers": -1}, "num_hidden_layers: expected 1"),
    (SD, "text_encoder/config.json", {"num_hidden_layers": 10**9}, "at most 200, got 1000000000"),
    (SD, "text_encoder/config.json", {"num_hidden_layers": "1"}, "got '1'"),
    (SD, "text_encoder/config.json", {"hidden_size": 10**6}, "expected the side of a tensor"),
    (SD, "text_encoder/config.json", {"hidden_size": None}, "got None"),
    (SD, "text_encoder/config.json", {"vocab_size": 10**12}, "vocab_size: expected at most"),
    (SD, "text_encoder/config.json", {"num_attention_heads": 3}, "text_encoder"),
    (SD, "text_encoder/config.json", {"num_attention_heads": 0}, "text_encoder"),
    (SD, "text_encoder/config.json", {"layer_norm_eps": "x"}, "text_encoder"),
    (SD, "text_encoder/config.json", {"hidden_act": "planted"}, "text_encoder"),
    (SD, "text_encoder/config.json", {"model_type": "bert"}, "clip_text_model, got 'bert'"),
    (SD, "text_encoder/config.json", {"auto_map": {"AutoModel": "planted.M"}}, "got auto_map"),
    (SD, "text_encoder/config.json", {"quantization_config": {"quant_method": "x"}}, "quantiz"),
    (SD, "unet/config.json", {"block_out_channels": [16]}, "of another shape"),
    (SD, "unet/config.json", {"block_out_channels": ["8"]}, "expected int, got '8'"),
    (SD, "unet/config.json", {"block_out_channels": []}, "unet"),
    (SD, "unet/config.json", {"layers_per_block": 10**6}, "at most 200"),
    (SD, "unet/config.json", {"down_block_types": ["CrossAttnDownBlock2D"] * 999}, "at most 200"),
    (SD, "unet/config.json", {"down_block_types": ["Planted"]}, "unet"),
    (SD, "unet/config.json", {"norm_num_groups": 3}, "unet"),
    (SD, "unet/config.json", {"norm_num_groups": 0}, "unet"),
    (SD, "unet/config.json", {"norm_eps": "0"}, "norm_eps: expected float, got '0'"),
    (SD, "unet/config.json", {"flip_sin_to_cos": 1}, "flip_sin_to_cos: expected bool, got 1"),
    (SD, "unet/config.json", {"in_channels": True}, "in_channels: expected int, got True"),
    (SD, "unet/config.json", {"sample_size": None}, "sample_size: expected a side of latents"),
    (SD, "unet/config.json", {"sample_size": 10**6}, "sample_size: expected a side of latents"),
    (
        SD,
        "unet/config.json",
        {"cross_attention_dim": 32},
        "cross_attention_dim 16, but this has 32",
    ),
    (SD, "unet/config.json", {"_class_name": "Planted"}, "UNet2DConditionModel, got 'Planted'"),
    (SD, "vae/config.json", {"scaling_factor": 0}, "scaling_factor: expected a number above 0"),
    (SD, "vae/config.json", {"scaling_factor": -1.5}, "scaling_factor: expected a number above 0"),
    (SD, "vae/config.json", {"scaling_factor": None}, "scaling_factor: expected float, got None"),
    (SD, "vae/config.json", {"scaling_factor": "1"}, "scaling_factor: expected float, got '1'"),
    (SD, "vae/config.json", {"latent_channels": 3}, "vae|unet"),
    (SD, "vae/config.json", {"out_channels": 4}, "out_channels 3, but this has 4"),
    (SD, "scheduler/scheduler_config.json", {"_class_name": "Planted"}, "got 'Planted'"),
    (SD, "scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "got 'LCMSched"),
    (SD, "scheduler/scheduler_config.json", {"_class_name": ["os", "system"]}, "DDIMScheduler"),
    (SD, "scheduler/scheduler_config.json", {"beta_schedule": "x"}, "schedule of betas"),
    (SD, "scheduler/scheduler_config.json", {"beta_start": "x"}, "beta_start: expected float"),
    (SD, "scheduler/scheduler_config.json", {"beta_start": 0.5, "beta_end": -1}, "betas"),
    (SD, "scheduler/scheduler_config.json", {"beta_end": 2.0}, "betas between 0 and 1"),
    (SD, "scheduler/scheduler_config.json", {"trained_betas": [0.1, 0.2]}, "betas"),
    (SD, "scheduler/scheduler_config.json", {"trained_betas": "x"}, "betas"),
    (SD, "scheduler/scheduler_config.json", {"num_train_timesteps": 2000}, "got 2000"),
    (SD, "scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "expected 2 to 1000"),
    (SD, "scheduler/scheduler_config.json", {"num_train_timesteps": 10**10}, "expected at most"),
    (SD, "scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}, "expected int"),
    (SD, "scheduler/scheduler_config.json", {"steps_offset": 999}, "expected 0 or 1, got 999"),
    (SD, "scheduler/scheduler_config.json", {"prediction_type": "noise"}, "got 'noise'"),
    (SD, "scheduler/scheduler_config.json", {"timestep_spacing": "x"}, "one of leading, linspace"),
    (SD, "scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "v-prediction"),
    (SD, "tokenizer/tokenizer_config.json", {"tokenizer_class": "Planted"}, "got 'Planted'"),
    (SD, "tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["p.T", None]}}, "auto"),
    (SD, "tokenizer/tokenizer_config.json", {"model_max_length": 10**30}, "model_max_length"),
    (SD, "tokenizer/tokenizer_config.json", {"model_max_length": 0}, "model_max_length"),
    (SD, "model_index.json", {"unet": ["os", "system"]}, "UNet2DConditionModel, got 'system'"),
    (SD, "model_index.json", {"unet": ["planted", "Planted"]}, "got 'Planted'"),
    (SD, "model_index.json", {"scheduler": ["planted", "Planted"]}, "got 'Planted'"),
    (SD, "model_index.json", {"tokenizer": ["transformers", "T5Tokenizer"]}, "got 'T5Tokenizer'"),
    (SD, "model_index.json", {"safety_checker": ["planted", "Planted"]}, "got 'Planted'"),
    (SD, "model_index.json", {"extra": ["planted", "Planted"]}, "no such part, got 'Planted'"),
    (SD, "model_index.json", {"_class_name": "PlantedPipeline"}, "got 'PlantedPipeline'"),
    (XL, "unet/config.json", {"addition_time_embed_dim": 8}, "projection_class_embeddings_input"),
    (XL, "unet/config.json", {"addition_time_embed_dim": None}, "projection_class_embeddings"),
    (XL, "text_encoder_2/config.json", {"projection_dim": 16}, "text_encoder_2|unet"),
    (XL, "scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "v-prediction"),
    (SD3, "transformer/config.json", {"num_layers": 3}, "without"),
    (SD3, "transformer/config.json", {"pooled_projection_dim": 30}, "pooled_projection_dim 22"),
    (SD3, "text_encoder_3/config.json", {"d_model": 64}, "text_encoder_3"),
    (SD3, "text_encoder_3/config.json", {"num_layers": 9}, "num_layers: expected 1"),
    (SD3, "scheduler/scheduler_config.json", {"shift": 0}, "shift: expected a number above 0"),
    (SD3, "scheduler/scheduler_config.json", {"shift": None}, "shift: expected float"),
    (SD3, "scheduler/scheduler_config.json", {"num_train_timesteps": 2000}, "got 2000"),
]


@pytest.mark.parametrize(("name", "file", "changes", "message"), CONFIGS)
def test_settings_that_cannot_be_are_refused(
    copied: Copy, name: str, file: str, changes: dict[str, Any], message: str
) -> None:
    refused(name, edited(copied(name), file, **changes), message)


def test_nothing_that_a_folder_names_is_imported(
    copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules in the folder, in the index and in auto_map: none of them runs."""
    folder = copied(SD)
    for place in (folder, folder / "unet", folder / "tokenizer"):
        (place / "planted.py").write_text("raise SystemExit('planted code ran')")
    monkeypatch.syspath_prepend(folder)
    use(SD, folder)
    edited(folder, "model_index.json", unet=["planted", "UNet2DConditionModel"])
    use(SD, folder)
    edited(folder, "model_index.json", unet=["planted", "Planted"])
    refused(SD, folder, "got 'Planted'")


@pytest.mark.parametrize(("name", "part"), EVERY)
def test_every_setting_of_another_type_is_refused_or_changes_nothing(
    copied: Copy, name: str, part: str
) -> None:
    """Each in turn becomes a text, a list, an object, a large number: never a traceback."""
    folder, values = copied(name), ("planted", [], {}, -1, 10**8, 0.5, True)
    path = folder / part / "config.json"
    config = json.loads(path.read_text())
    for number, key in enumerate(config):
        path.write_text(json.dumps(config | {key: values[number % len(values)]}))
        with suppress(UserError):
            BACKBONES.get(name)(folder).check("float32")


def test_a_tokenizer_of_another_model_is_refused(copied: Copy, folders: dict[str, Path]) -> None:
    """By the number of its tokens, or by its class."""
    folder = copied(SD3)
    for part, other in (("tokenizer", "tokenizer_3"), ("tokenizer_3", "tokenizer")):
        shutil.rmtree(folder / part)
        shutil.copytree(folders[SD3] / other, folder / part)
        refused(SD3, folder, f"{part}.*: expected")
        shutil.rmtree(folder / part)
        shutil.copytree(folders[SD3] / part, folder / part)
    path = folder / "tokenizer/tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"] |= {"planted": len(told["model"]["vocab"])}
    path.write_text(json.dumps(told))
    refused(SD3, folder, r"expected a tokenizer of \d+ tokens, as its text encoder has, got one of")


def sharded(folder: Path, part: str) -> Path:
    """The weights of a part in two files and an index."""
    path = weights(folder, part)
    whole = load_file(path)
    path.unlink()
    halves = [dict(list(whole.items())[i::2]) for i in range(2)]
    names = [f"{path.stem}-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / part / name, {"format": "pt"})
    index = path.with_name(f"{path.name}.index.json")
    placed = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return index


@pytest.mark.parametrize("part", PARTS[SD])
def test_an_index_that_does_not_fit_its_files_is_refused(copied: Copy, part: str) -> None:
    folder = copied(SD)
    index = sharded(folder, part)
    use(SD, folder)
    good = json.loads(index.read_text())
    placed = good["weight_map"]
    first, second = sorted(set(placed.values()))
    key = min(placed)
    wrong: list[tuple[Any, str]] = [
        (good | {"weight_map": placed | {key: "nowhere.safetensors"}}, "got 'nowhere.safetensors'"),
        (good | {"weight_map": placed | {key: "../vae/../x.safetensors"}}, r"got '\.\./vae"),
        (good | {"weight_map": placed | {key: str(index.parent / first)}}, "files beside it, got"),
        (good | {"weight_map": placed | {key: "config.json"}}, "got 'config.json'"),
        (good | {"weight_map": placed | {key: 3}}, "got 3"),
        (good | {"weight_map": placed | {key: second}}, rf"not so are {key}"),
        (good | {"weight_map": {k: v for k, v in placed.items() if k != key}}, f"not so are {key}"),
        (good | {"weight_map": placed | {"planted": first}}, "not so are planted"),
        (good | {"weight_map": {}}, "expected a weight_map"),
        (good | {"weight_map": [first]}, "expected a weight_map"),
        ([], "expected an object of settings"),
    ]
    for content, message in wrong:
        index.write_text(json.dumps(content))
        refused(SD, folder, message)
    index.write_text(json.dumps(good))
    twice = load_file(folder / part / second) | {key: load_file(folder / part / first)[key]}
    save_file(twice, folder / part / second, {"format": "pt"})
    refused(SD, folder, f"expected each tensor once, got {key} in {first} as well")
    (folder / part / second).unlink()
    (folder / part / second).symlink_to("/dev/null")
    refused(SD, folder, f"got '{second}'")


def test_weights_in_one_file_and_by_an_index_are_refused(copied: Copy) -> None:
    folder = copied(SD)
    whole = weights(folder, "unet").read_bytes()
    name = weights(folder, "unet").name
    sharded(folder, "unet")
    (folder / "unet" / name).write_bytes(whole)
    refused(SD, folder, "in one file or by one index, got .* and .*: delete one of them")


def test_what_older_checkpoints_hold_besides_is_no_harm(copied: Copy) -> None:
    """Positions that were saved, names with a prefix, tied weights: known to the libraries."""
    folder = copied(SD)
    path = weights(folder, "text_encoder")
    older = {f"text_model.{name}": value for name, value in load_file(path).items()}
    older["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(older, path, {"format": "pt"})
    use(SD, folder)


def test_values_beyond_a_precision_are_refused_in_it_alone(copied: Copy) -> None:
    folder = copied(SD)
    path = weights(folder, "text_encoder")
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0] = 1e5
    save_file(tensors, path, {"format": "pt"})
    backbone = BACKBONES.get(SD)(folder)
    backbone.check("bfloat16", "float32")
    for precisions in (("float16",), ("float32", "float16")):
        with pytest.raises(UserError, match="become infinite in it: compute in bfloat16 or float"):
            backbone.check(*precisions)


def test_the_command_line_says_it_in_one_line(
    copied: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(SD)
    weights(folder, "vae").write_bytes(POINTER)
    for command in (
        ["generate", "--prompts", "mini-dev", "--limit", "1", "--out", str(tmp_path / "images")],
        ["export", str(folder), "--out", str(tmp_path / "whole")],
        ["train", "DPO", "--out", str(tmp_path / "run"), "--set", f"base={folder}"],
        ["ablate", "--out", str(tmp_path / "runs"), "--set", f"base={folder}"],
    ):
        base = [] if "--set" in command else ["--base", str(folder)]
        assert run([*command, *base]) == 1
        error = capsys.readouterr().err
        assert "a pointer of Git LFS" in error
        assert "Traceback" not in error
