"""Parts of a model as folders in the diffusers layout, read and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainers.backbones.configs import expect_class, expect_sizes, read_config, refusing, shown
from trainers.errors import UserError
from trainers.files import write_text
from trainers.input.paths import inside, is_regular
from trainers.input.tensors import (
    Shape,
    not_finite,
    read_shapes,
    read_weights,
    refuse_unfit,
    some,
)
from trainers.input.text import read_json

CONFIG = "config.json"
"""Where a part's settings lie in its folder."""
STEMS = ("diffusion_pytorch_model", "model")
"""How the weights of diffusers' and transformers' models are called."""
ENDS = {
    None: (".safetensors", ".safetensors.index.json"),
    "fp16": (".fp16.safetensors", ".safetensors.index.fp16.json"),
}
"""The rest of their names by variant: in one file, or the index of several."""


def variant(folder: Path) -> str | None:
    """Which weights of a part to read: "fp16" where there are no others, else None.

    Raises:
        UserError: If there are no weights, or none that can be read without running what they hold.
    """
    names = {path.name for path in folder.iterdir()}
    for found, ends in ENDS.items():
        if any(stem + end in names for stem in STEMS for end in ends):
            return found
    expected = f"expected weights in {folder}, as {STEMS[0]}.safetensors or {STEMS[1]}.safetensors"
    if pickles := sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt"))):
        raise UserError(
            f"{expected}, got {pickles[0]}, which can run code when it is read: download the "
            "model's safetensors or, if you trust the file, load the model with diffusers once and "
            "write it anew with save_pretrained"
        )
    raise UserError(f"{expected}, got none: give a folder written by save_pretrained")


def weight_files(folder: Path) -> list[Path]:
    """The files of a part's weights, of the variant that is read; an index and what it names.

    Raises:
        UserError: As for :func:`variant`, or if the weights are there twice, or an index names
            what is no file beside it.
    """
    candidates = [folder / (stem + end) for stem in STEMS for end in ENDS[variant(folder)]]
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise UserError(
            f"{folder}: expected weights in one file or by one index, got "
            f"{' and '.join(path.name for path in found)}: delete one of them"
        )
    for index in [path for path in found if path.suffix == ".json"]:
        found += [folder / name for name in sorted(set(_weight_map(index).values()))]
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """The name of the file of each tensor, by an index."""
    placed = read_config(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise UserError(
            f"{index}: expected a weight_map from tensors to files, got none: fetch it again"
        )
    for name in dict.fromkeys(placed.values()):
        plain = isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")
        if not plain or inside(index.parent, name) is None or not is_regular(index.parent / name):
            raise UserError(
                f"{index}: expected names of safetensors files beside it, got {shown(name)}: fetch "
                "that file, or the index again"
            )
    return placed


def stored_shapes(folder: Path) -> dict[str, Shape]:
    """Shapes of a part's tensors as they are stored, by name.

    Raises:
        UserError: As for :func:`weight_files`, or if a file is damaged or is not what an index
            says of it.
    """
    files = weight_files(folder)
    index = next((path for path in files if path.suffix == ".json"), None)
    shapes: dict[str, Shape] = {}
    places: dict[str, str] = {}
    for path in files:
        if path != index:
            own = read_shapes(path)
            if twice := shapes.keys() & own.keys():
                raise UserError(
                    f"{path}: expected each tensor once, got {some(twice)} in {places[min(twice)]} "
                    "as well: fetch the files again"
                )
            shapes |= own
            places |= dict.fromkeys(own, path.name)
    if index is not None and (placed := _weight_map(index)) != places:
        wrong = {name for name, _ in placed.items() ^ places.items()}
        raise UserError(
            f"{index}: expected each tensor in the file that it names, not so are {some(wrong)}: "
            "fetch the files again"
        )
    return shapes


def check_part(kind: Any, folder: Path) -> dict[str, Shape]:
    """Refuse what can be seen to be no part of that kind without reading its weights.

    Returns:
        Shapes of its tensors as they are stored, by name.

    Raises:
        UserError: If so, as for :func:`stored_shapes`.
    """
    path, shapes = folder / CONFIG, stored_shapes(folder)
    config = read_config(path)
    if hasattr(kind, "from_config"):
        expect_class(path, config, kind)
        return shapes
    own = kind.config_class.model_type
    if (name := config.get("model_type", own)) != own:
        raise UserError(f"{path}: expected the settings of a {own}, got {shown(name)}")
    expect_sizes(path, config, shapes)
    return shapes


def load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of diffusers or transformers, in ``dtype`` whatever it is stored in.

    Raises:
        UserError: As for :func:`check_part`, or if a tensor is missing, unknown or of another
            shape than the config says, or has values that are not finite, be it in ``dtype`` only.
    """
    check_part(kind, folder)
    with refusing(folder, f"the config and the weights of a {kind.__name__}"):
        model, told = kind.from_pretrained(
            folder,
            variant=variant(folder),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    refuse_unloaded(told, folder, folder / CONFIG)
    refuse_overflow(model, folder, dtype)
    return model


def refuse_unloaded(told: Mapping[str, Any], where: Path, config: Path) -> None:
    """Refuse a model of which not every tensor was loaded, or not every one into it.

    Args:
        told: What ``from_pretrained`` tells with ``output_loading_info``.
        where: The file or folder of the weights.
        config: What describes the model.

    Raises:
        UserError: If so.
    """
    misshapen = {name: (tuple(got), tuple(own)) for name, got, own in told["mismatched_keys"]}
    missing = set(told["missing_keys"]) - misshapen.keys()
    refuse_unfit(where, config, missing, told["unexpected_keys"], misshapen)


def refuse_overflow(model: nn.Module, where: Path, dtype: torch.dtype) -> None:
    """Refuse a loaded model with values that are not finite: as stored, or in ``dtype`` only.

    Raises:
        UserError: If there are any; ``where`` is the file or the folder of the weights.
    """
    if bad := not_finite(model.state_dict().items()):
        for path in weight_files(where) if where.is_dir() else [where]:
            if path.suffix != ".json":
                read_weights(path)
        raise UserError(
            f"{where}: expected weights that {dtype} can hold, got values in {some(bad)} that "
            "become infinite in it: compute in bfloat16 or float32"
        )


def build_part(kind: Any, config: dict[str, Any], where: Path) -> Any:
    """A model of diffusers or transformers on the meta device, by its config.

    Raises:
        UserError: If the library refuses it; ``where`` says where it lies.
    """
    with torch.device("meta"), refusing(where, f"the config of a {kind.__name__}"):
        if hasattr(kind, "from_config"):
            return kind.from_config(config)
        return kind(kind.config_class(**config))


def published(module: str) -> dict[str, dict[str, Any]]:
    """Configs of well-known models, from the JSON file beside the module of their backbone.

    By the last part of their folder's or repository's name: their source, and what each part has
    in ``config.json`` there, without what diffusers or transformers fill in alike.
    """
    found: dict[str, dict[str, Any]] = read_json(Path(module).with_suffix(".json"))
    return found


def save_part(model: Any, folder: Path) -> None:
    """Write a diffusers model: the same bytes wherever it was loaded from.

    ``save_pretrained`` puts the path that the weights came from into the config.
    """
    model.save_pretrained(folder)
    path = folder / CONFIG
    config = read_json(path)
    config.pop("_name_or_path", None)
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
