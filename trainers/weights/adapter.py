"""Low-rank adapters: made, copied and saved, over frozen weights that all roles share."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from trainers.backbones.adapters import METADATA
from trainers.errors import UserError
from trainers.files import write_atomically
from trainers.seeds import derive


class Adapted(nn.Module):
    """A role of LoRA. Its parameters are the adapter's alone; the frozen weights are hidden.

    Roles share tensors but no layers, so no adapter is ever switched on or off: whatever runs a
    layer, and be it again in a backward pass, meets the adapter of that layer's own role.
    """

    def __init__(self, adapted: nn.Module, off: nn.Module | None = None) -> None:
        """``off`` is the network without adapter, if the role is to run through that."""
        super().__init__()
        self._hidden = (adapted, adapted if off is None else off)
        weights = _adapter(adapted).items()
        self.adapter = nn.ParameterDict({name.replace(".", "/"): w for name, w in weights})

    @property
    def network(self) -> nn.Module:
        """The network that the role runs through."""
        return self._hidden[1]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """That of the network."""
        return self.network(*args, **kwargs)

    def __deepcopy__(self, _: dict[int, Any]) -> "Adapted":
        """A role with a copy of the adapter, switched on, over the same frozen weights."""
        return Adapted(_copy_adapter(self._hidden[0]))


def add_adapter(
    base: nn.Module, rank: int, alpha: float, targets: Sequence[str], init: str, seed: int
) -> nn.Module:
    """A network with layers of its own that has an adapter and the very weights of ``base``.

    Args:
        base: The network, frozen.
        rank: Rows of A and columns of B.
        alpha: The product is scaled by ``alpha / rank``.
        targets: Layers by the end of their name.
        init: How peft is to initialise.
        seed: Of A, which is drawn from N(0, 1 / rank^2).

    Raises:
        UserError: If peft is not installed, or a target fits no layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(
            "weights 'lora' needs peft, which is not installed: pip install 'dpo-bench[lora]'"
        ) from error
    kind: Any = LoraConfig
    config = kind(r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=init)
    names = [name for name, _ in base.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(
                f"weights 'lora': targets: no layer of {type(base).__name__} is called "
                f"{target!r}: remove it or correct its spelling"
            )
    network = _copy_adapter(base)
    try:
        with torch.random.fork_rng(devices=[]):  # It draws, if only to be overwritten below.
            inject_adapter_in_model(config, network)
    except ValueError as error:
        why = " ".join(str(error).split())
        raise UserError(f"weights 'lora': targets: {why}") from error
    for name, weight in _adapter(network).items():
        weight.data = weight.data.float()
        weight.requires_grad_(False)
        if ".lora_A." in name:
            generator = torch.Generator().manual_seed(derive(seed, "adapter", name))
            weight.data.copy_(torch.randn(weight.shape, generator=generator) / rank)
    return network


def save_adapter(network: nn.Module, part: str, path: Path) -> None:
    """Write the adapter of a network alone, as ``load_lora_weights`` of diffusers reads it.

    ``part`` is the folder of the network in its model.
    """
    tensors = {
        f"{part}.{name.replace('.default.', '.')}": weight.detach().cpu()
        for name, weight in _adapter(network).items()
    }
    config: dict[str, Any] = network.peft_config["default"].to_dict()  # type: ignore[union-attr, index]
    settings = {
        f"{part}.{key}": sorted(value) if isinstance(value, set) else value
        for key, value in config.items()
    }
    metadata = {METADATA: json.dumps(settings, sort_keys=True)}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def _adapter(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of the adapter of a network by their names in it."""
    return {name: p for name, p in network.named_parameters() if ".lora_" in name}


def _copy_adapter(network: nn.Module) -> nn.Module:
    """A copy of a network, its adapter included, that has the very tensors of the frozen rest."""
    own = {id(p) for p in _adapter(network).values()}
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(t): t for t in tensors if id(t) not in own})
