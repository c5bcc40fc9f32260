"""Low-rank adapters from files, laid over a network: every tensor lands on a layer."""

import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from torch import nn

from trainers.backbones.configs import refusing, shown
from trainers.errors import UserError
from trainers.input.tensors import Shape, Tensors, read_metadata, read_tensors, some
from trainers.input.text import parse_json

METADATA = "lora_adapter_metadata"
"""The key under which diffusers looks for the adapter's settings, alpha among them."""
NAME = "default"
"""Of the adapter within the network."""
KEY = re.compile(r"(.+)\.lora_([AB])\.weight")
APPLIED = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules")
"""Settings of peft that decide how an adapter of A and B acts; where, its tensors say."""
INERT = (
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_dropout", "peft_type",
    "peft_version", "revision", "task_type",
)  # fmt: skip
"""Those that matter only to its training, or say where it came from."""
OFF: tuple[Any, ...] = (None, False, "none", {}, [])
"""Values that switch any other setting off, beside peft's default."""


def apply_adapter(network: Any, part: str, path: Path) -> None:
    """Lay an adapter over a network of diffusers, in place, without merging it.

    Args:
        network: The network.
        part: Its folder in the model, with which every name in the file must begin.
        path: The file, as ``save_lora_weights`` of diffusers writes it.

    Raises:
        UserError: If peft is not installed, a tensor belongs to no layer or has another size,
            lacks its other half or is not finite, or the settings contradict the tensors.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{path} is applied by peft, which is not installed: pip install 'dpo-bench[lora]'"
        ) from error
    settings, tensors = read_adapter(network, part, path)
    with refusing(path, "an adapter that fits the network"):
        network.load_lora_adapter(
            tensors, prefix=None, metadata=settings or None, adapter_name=NAME,
            low_cpu_mem_usage=True,
        )  # fmt: skip
    landed = {
        name.replace(f".{NAME}.", ".") for name, _ in network.named_parameters() if ".lora_" in name
    }
    if wrong := landed ^ tensors.keys():
        raise UserError(
            f"{path}: expected every tensor to land on a layer, and none besides, got another "
            f"outcome for {some(wrong)}: write the adapter anew with save_lora_weights"
        )


def read_adapter(network: nn.Module, part: str, path: Path) -> tuple[dict[str, Any], Tensors]:
    """Settings and tensors of an adapter, by the names of the network's layers.

    Raises:
        UserError: As for :func:`apply_adapter`.
    """
    stored = read_tensors(path)
    tensors: Tensors = {}
    for key, tensor in stored.items():
        if not key.startswith(f"{part}.") or not KEY.fullmatch(key):
            raise UserError(
                f"{path}: expected an adapter of one part of the model, with tensors called "
                f"{part}.<layer>.lora_A.weight and {part}.<layer>.lora_B.weight, got one of "
                f"{key.partition('.')[0]}, called {key}: give the model that it was trained from, "
                "or write it anew with save_lora_weights of diffusers"
            )
        tensors[key.removeprefix(f"{part}.")] = tensor
    if not tensors:
        raise UserError(f"{path}: expected an adapter, got no tensors: give another file")
    ranks = _ranks(network, tensors, path)
    return _settings(part, path, ranks), tensors


def _ranks(network: nn.Module, tensors: Tensors, path: Path) -> dict[str, int]:
    """The rank of the adapter of each layer."""
    layers, ranks = dict(network.named_modules()), {}
    for key in tensors:
        layer = key.rpartition(".lora_")[0]
        weight = getattr(layers.get(layer), "weight", None)
        halves = [tensors[n] for h in "AB" if (n := f"{layer}.lora_{h}.weight") in tensors]
        if weight is None or not isinstance(layers[layer], (nn.Linear, nn.Conv2d)):
            raise UserError(
                f"{path}: expected adapters of layers of the network, got {key}, and there is no "
                f"layer {layer}: give the model that the adapter was trained from"
            )
        if len(halves) < 2:
            raise UserError(
                f"{path}: expected lora_A and lora_B of each layer, got {key} alone: the file is "
                "not whole, fetch it again"
            )
        _expect_shapes(path, layer, weight.shape, *(half.shape for half in halves))
        ranks[layer] = halves[0].shape[0]
    return ranks


def _expect_shapes(path: Path, layer: str, weight: Shape, a: Shape, b: Shape) -> None:
    """Refuse an adapter that does not fit the weight of its layer."""
    for own, what, shape, side in ((weight[1], "inputs", a, 1), (weight[0], "outputs", b, 0)):
        if len(shape) > side and shape[side] != own:
            raise UserError(
                f"{path}: expected the network to have a layer {layer} with {shape[side]} {what}, "
                f"but it has {own}: give the model that the adapter was trained from"
            )
    if (*a[1:], *b) != (*weight[1:], weight[0], a[0], *(1 for _ in weight[2:])):
        raise UserError(
            f"{path}: expected A and B of one rank for {layer}, whose weight is {list(weight)}, "
            f"got {list(a)} and {list(b)}: the file is damaged, fetch it again"
        )


def _settings(part: str, path: Path, ranks: Mapping[str, int]) -> dict[str, Any]:
    """What of the adapter's settings decides how it acts; none where the file has none."""
    from peft import LoraConfig

    text = read_metadata(path).get(METADATA)
    if text is None:
        return {}
    told = parse_json(text, f"{path}, {METADATA}")
    if not isinstance(told, dict) or not all(key.startswith(f"{part}.") for key in told):
        raise UserError(
            f"{path}: expected settings in {METADATA} that begin with {part}., got others: write "
            "the adapter anew with save_lora_weights"
        )
    settings = {key.removeprefix(f"{part}."): value for key, value in told.items()}
    usual = LoraConfig().to_dict()
    for key, value in settings.items():
        if key not in (*APPLIED, *INERT) and value not in (*OFF, usual.get(key)):
            raise UserError(
                f"{path}: expected a plain adapter of A and B, got {key} {shown(value)}: merge it "
                "with peft, and give the merged network"
            )
    _expect_consistent(settings, path, ranks)
    return {key: value for key, value in settings.items() if key in APPLIED}


def _expect_consistent(settings: dict[str, Any], path: Path, ranks: Mapping[str, int]) -> None:
    """Refuse ranks that are not those of the tensors, and factors that are no positive numbers."""
    patterns = {"r": settings.get("rank_pattern"), "lora_alpha": settings.get("alpha_pattern")}
    for key, pattern in patterns.items():
        values = [settings.get(key), *(pattern or {}).values()]
        for value in values:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not (isfinite(value) and value > 0):
                raise UserError(
                    f"{path}: {key}: expected a number above 0, got {shown(value)}: write the "
                    "adapter anew"
                )
    if not patterns["r"] and (other := set(ranks.values()) - {settings["r"]}):
        raise UserError(
            f"{path}: expected tensors of rank {settings['r']} as its settings say, got "
            f"{min(other)}: write the adapter anew"
        )
