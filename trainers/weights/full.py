"""Every weight of the network is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainers.backbones import Backbone
from trainers.machine.precision import torch_dtype
from trainers.weights.base import Roles, Weights

if TYPE_CHECKING:
    from torch import nn


class Full(Weights):
    """Two networks, policy and init, and a third where the reference is updated.

    With ``frozen_dtype``, init and reference are stored in that precision: Diffusion-DPO's own code
    holds its reference in float16 (Wallace et al. 2023, arXiv 2311.12908).
    """

    name: ClassVar[str] = "full"

    def start(self, load: Callable[[], nn.Module], seed: int, init: bool = True) -> Roles:
        """See the base class; nothing is random."""
        if not init:
            return Roles(policy=load().train(), init=None)
        frozen = load().eval().requires_grad_(False)
        if self.frozen_dtype != "float32":
            frozen.to(torch_dtype(self.frozen_dtype))
        return Roles(policy=load().train(), init=frozen)

    def network(self, role: nn.Module) -> nn.Module:
        """See the base class: the role itself."""
        return role

    def save(self, role: nn.Module, backbone: Backbone, folder: Path) -> None:
        """See the base class."""
        backbone.save_network(role, folder)
