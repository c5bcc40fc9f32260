"""Low-rank adapters on frozen weights."""

import copy
import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from safetensors.torch import save_file
from torch import nn

from trainers.backbones.base import ADAPTER_FILE, Backbone
from trainers.errors import UserError
from trainers.files import write_atomically
from trainers.machine.execution import DTYPES
from trainers.seeds import derive
from trainers.weights.base import Roles, Weights

_METADATA = "lora_adapter_metadata"
"""The key under which diffusers looks for the adapter's settings, alpha among them."""


class LoRA(Weights):
    """``W + alpha / rank * B A`` in the layers named by ``targets`` (Hu et al. 2021, 2106.09685).

    All roles share one set of frozen weights. The pretrained network is the one without adapters,
    and so is a frozen reference; an updated reference is an adapter of its own, which starts as a
    copy of the policy's first one. A copy of the policy is exact; a mixture of two adapters mixes
    A and B each, which is near, but not, the mixture of their products.
    """

    name: ClassVar[str] = "lora"
    adapter: ClassVar[bool] = True
    rank: int = Field(8, ge=1)
    alpha: float | None = Field(None, gt=0)
    """None for ``rank``, a factor of 1."""
    targets: tuple[str, ...] = Field(("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Layers by the end of their name."""
    init: Literal["gaussian"] = "gaussian"
    """A from N(0, 1 / rank^2), B zero."""
    dropout: float = 0.0
    """Must be 0; the key is there so that a recipe that has one is told why."""

    @field_validator("dropout")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value != 0:
            raise ValueError(
                "must be 0: policy and reference would differ although their weights agree, so "
                "that the margin would measure the dropout's noise"
            )
        return value

    def start(self, load: Callable[[], nn.Module], seed: int) -> Roles:
        """See the base class; the seed decides A.

        Raises:
            UserError: If peft is not installed, or a target fits no layer.
        """
        base = load().eval().requires_grad_(False)
        if self.frozen_dtype != "float32":
            base.to(DTYPES[self.frozen_dtype])
        init = Adapted(self._adapt(base, seed), off=base)
        policy = copy.deepcopy(init).requires_grad_(True)
        policy.network.train()
        return Roles(policy, init)

    def _adapt(self, base: nn.Module, seed: int) -> nn.Module:
        """A network with layers of its own that has an adapter and shares the weights of base."""
        config, inject = self._peft()
        names = [name for name, _ in base.named_modules()]
        for target in self.targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise UserError(
                    f"weights 'lora': targets: no layer of {type(base).__name__} is called "
                    f"{target!r}: remove it or correct its spelling"
                )
        network = _share(base)
        try:
            with torch.random.fork_rng(devices=[]):  # It draws, if only to be overwritten below.
                inject(config, network)
        except ValueError as error:
            why = " ".join(str(error).split())
            raise UserError(f"weights 'lora': targets: {why}") from error
        for name, weight in _adapter(network).items():
            weight.data = weight.data.float()
            weight.requires_grad_(False)
            if ".lora_A." in name:
                generator = torch.Generator().manual_seed(derive(seed, "adapter", name))
                weight.data.copy_(torch.randn(weight.shape, generator=generator) / self.rank)
        return network

    def _peft(self) -> tuple[Any, Any]:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise UserError(
                "weights 'lora' needs peft, which is not installed: pip install 'dpo-bench[lora]'"
            ) from error
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank if self.alpha is None else self.alpha,
            target_modules=list(self.targets),
            init_lora_weights=self.init,
        )
        return config, inject_adapter_in_model

    def trained_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
        """See the base class: A and B of every target."""
        found: list[tuple[int, ...]] = []
        for name, shape in shapes.items():
            layer = name.removesuffix(".weight")
            if layer != name and any(f".{layer}".endswith(f".{target}") for target in self.targets):
                found += [(self.rank, prod(shape[1:])), (shape[0], self.rank)]
        return found

    def network(self, role: nn.Module) -> nn.Module:
        """See the base class."""
        assert isinstance(role, Adapted)
        return role.network

    def save(self, role: nn.Module, backbone: Backbone, folder: Path) -> None:
        """See the base class: the adapter alone, as ``load_lora_weights`` of diffusers reads it."""
        network = self.network(role)
        tensors = {
            f"{backbone.network_part}.{name.replace('.default.', '.')}": weight.detach().cpu()
            for name, weight in _adapter(network).items()
        }
        config: dict[str, Any] = network.peft_config["default"].to_dict()  # type: ignore[union-attr, index]
        settings = {
            f"{backbone.network_part}.{key}": sorted(value) if isinstance(value, set) else value
            for key, value in config.items()
        }
        metadata = {_METADATA: json.dumps(settings, sort_keys=True)}
        write_atomically(folder / ADAPTER_FILE, lambda part: save_file(tensors, part, metadata))


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

    def __deepcopy__(self, memo: dict[int, Any]) -> "Adapted":
        """A role with a copy of the adapter, switched on, over the same frozen weights."""
        return Adapted(_share(self._hidden[0]))


def _adapter(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of the adapter of a network by their names in it."""
    return {name: p for name, p in network.named_parameters() if ".lora_" in name}


def _share(network: nn.Module) -> nn.Module:
    """A copy of a network, its adapter included, that has the very tensors of the frozen rest."""
    own = {id(p) for p in _adapter(network).values()}
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(t): t for t in tensors if id(t) not in own})
