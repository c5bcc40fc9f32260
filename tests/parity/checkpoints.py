"""Writes what a reward loads, and what its published implementation loads: the same weights.

Imports numpy, torch and safetensors, which both environments have.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from architectures import (
    FULL,
    SMALL,
    State,
    head_shapes,
    imagereward_shapes,
    med_config,
    open_clip_shapes,
    to_transformers,
    weights,
)
from safetensors.torch import save_file
from vocabulary import bert_tokenizer, clip_tokenizer

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
OPEN_CLIP = "open_clip.pt"
"""The CLIP model in the layout of OpenAI's package and of open_clip."""
HPS = {"hpsv2.0": "HPS_v2_compressed.pt", "hpsv2.1": "HPS_v2.1_compressed.pt"}


def write(name: str, folder: Path, full: bool = False) -> int:
    """Write the files of the reward ``name`` into ``folder``; the number of weights.

    Random ones: small models in float32, or models of the full size in float16 to spare the disk,
    which changes nothing, since the values are such that float16 holds them.
    """
    config = (FULL if full else SMALL)[name]
    dtype = torch.float16 if full else torch.float32
    return _WRITERS[name](folder, name, config, dtype)


def _tensors(state: State, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Tensors of ``state``, which is emptied meanwhile: a large model should not be here twice."""
    return {name: torch.from_numpy(state.pop(name)).to(dtype) for name in list(state)}


def _write_json(folder: Path, contents: Mapping[str, dict[str, Any]]) -> None:
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _clip(folder: Path, name: str, config: dict[str, Any], dtype: torch.dtype) -> int:
    _write_json(folder, {"config.json": config, "tokenizer.json": clip_tokenizer()})
    shapes = open_clip_shapes(config)
    state = weights(shapes, name)
    save_file(_tensors(to_transformers(state), dtype), folder / "model.safetensors")
    torch.save(_tensors(state, dtype), folder / OPEN_CLIP)
    return _count(shapes)


def _aesthetic(folder: Path, name: str, config: dict[str, Any], dtype: torch.dtype) -> int:
    torch.save(_tensors(weights(head_shapes(), name), torch.float32), folder / HEAD)
    return _clip(folder, name, config, dtype) + _count(head_shapes())


def _hpsv2(folder: Path, name: str, config: dict[str, Any], dtype: torch.dtype) -> int:
    _write_json(folder, {"config.json": config, "tokenizer.json": clip_tokenizer()})
    shapes = open_clip_shapes(config)
    torch.save({"state_dict": _tensors(weights(shapes, name), dtype)}, folder / HPS[name])
    return _count(shapes)


def _imagereward(folder: Path, name: str, config: dict[str, Any], dtype: torch.dtype) -> int:
    _write_json(folder, {"med_config.json": med_config(config), "tokenizer.json": bert_tokenizer()})
    shapes = imagereward_shapes(config)
    torch.save(_tensors(weights(shapes, name), dtype), folder / "ImageReward.pt")
    return _count(shapes)


def _count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


_WRITERS: dict[str, Callable[[Path, str, dict[str, Any], torch.dtype], int]] = {
    "clip": _clip,
    "clip-h14": _clip,
    "pickscore": _clip,
    "aesthetic": _aesthetic,
    "hpsv2.0": _hpsv2,
    "hpsv2.1": _hpsv2,
    "imagereward": _imagereward,
}
NAMES = tuple(_WRITERS)
