"""An adapter merged into the weights that it was trained on."""

from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from safetensors import safe_open
from torch import nn

from trainers.backbones.folders import load_part, save_part
from trainers.errors import UserError


def adapted_part(adapter: Path, parts: Sequence[str]) -> str:
    """The one of a model's parts that an adapter is for.

    Raises:
        UserError: If it is for another part.
    """
    with safe_open(adapter, framework="pt") as stream:
        found = {str(key).partition(".")[0] for key in stream.keys()}  # noqa: SIM118
    if len(found) != 1 or not found <= set(parts):
        raise UserError(
            f"{adapter}: expected an adapter of one part of the model, one of {', '.join(parts)}, "
            f"got one of {', '.join(sorted(found))}: give the model that it was trained from"
        )
    return found.pop()


def merge(kind: str, base: Path, adapter: Path, out: Path) -> None:
    """Write a network with ``W + alpha / rank * B A`` (Hu et al. 2021, 2106.09685), in float32.

    Args:
        kind: The network's class in diffusers.
        base: Folder of the pretrained network, named as the part is.
        adapter: File of the adapter, with alpha in its metadata.
        out: Folder to make.

    Raises:
        UserError: If peft is not installed, or the adapter is that of another network.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError(
            "an adapter is merged by peft, which is not installed: pip install 'dpo-bench[lora]'"
        ) from error
    network = load_part(getattr(diffusers, kind), base, torch.float32)
    _expect_fitting(network, base, adapter)
    network.load_lora_adapter(adapter.parent, prefix=base.name, weight_name=adapter.name)
    network.fuse_lora()
    network.unload_lora()
    save_part(network, out)


def _expect_fitting(network: nn.Module, base: Path, adapter: Path) -> None:
    """Refuse an adapter whose layers the network lacks, or has in another size."""
    weights = dict(network.named_parameters())
    with safe_open(adapter, framework="pt") as stream:
        for key in stream.keys():  # noqa: SIM118
            layer, _, factor = key.removeprefix(f"{base.name}.").rpartition(".lora_")
            shape = stream.get_slice(key).get_shape()
            weight = weights.get(f"{layer}.weight")
            side, what = (1, "inputs") if factor.startswith("A") else (0, "outputs")
            if weight is None or weight.shape[side] != shape[side]:
                got = "there is none" if weight is None else f"it has {weight.shape[side]}"
                raise UserError(
                    f"{adapter}: expected {base} to have a layer {layer} with {shape[side]} "
                    f"{what}, but {got}: give the model that the adapter was trained from"
                )
