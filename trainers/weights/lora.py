"""Low-rank adapters on frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from trainers.backbones.base import ADAPTER_FILE, Backbone
from trainers.machine.precision import torch_dtype
from trainers.weights.base import Roles, Weights

if TYPE_CHECKING:
    from torch import nn


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

    def start(self, load: Callable[[], nn.Module], seed: int, init: bool = True) -> Roles:
        """See the base class; the seed decides A.

        Raises:
            UserError: If peft is not installed, or a target fits no layer.
        """
        from trainers.weights.adapter import Adapted, add_adapter

        base = load().eval().requires_grad_(False)
        if self.frozen_dtype != "float32":
            base.to(torch_dtype(self.frozen_dtype))
        alpha = self.rank if self.alpha is None else self.alpha
        adapted = add_adapter(base, self.rank, alpha, self.targets, self.init, seed)
        without = Adapted(adapted, off=base)
        policy = copy.deepcopy(without).requires_grad_(True)
        policy.network.train()
        return Roles(policy, without if init else None)

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
        from trainers.weights.adapter import Adapted

        assert isinstance(role, Adapted)
        return role.network

    def save(self, role: nn.Module, backbone: Backbone, folder: Path) -> None:
        """See the base class: the adapter alone, as ``load_lora_weights`` of diffusers reads it."""
        from trainers.weights.adapter import save_adapter

        save_adapter(self.network(role), backbone.network_part, folder / ADAPTER_FILE)
