"""The networks of a run, and which of their weights are its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from trainers.backbones import Backbone
from trainers.machine.precision import Precision
from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import nn


class Roles(NamedTuple):
    """The two networks that every run starts from; they predict the same, to the bit in float32.

    Of each, ``parameters`` and ``state_dict`` are the weights that it does not share with the
    other, in the same order, and ``copy.deepcopy`` copies these alone. A copy of ``init`` is thus
    a reference that can follow the policy.
    """

    policy: nn.Module
    """Trainable, in float32."""
    init: nn.Module | None
    """The pretrained network, frozen; None if it is not wanted."""


class Weights(Settings, ABC):
    """What is trained, and how the rest is stored."""

    adapter: ClassVar[bool] = False
    """Whether what is trained lies beside the network's own weights, and those stay frozen. Then it
    is too small to be worth FSDP, the policy runs in ``frozen_dtype`` but for it, and a reference
    that follows is a copy of it alone, in float32; otherwise of all, in ``frozen_dtype``."""
    frozen_dtype: Precision = "float32"
    """What frozen weights are stored in: float32, or the precision that the run computes in."""

    @abstractmethod
    def start(self, load: Callable[[], nn.Module], seed: int, init: bool = True) -> Roles:
        """The networks at step 0.

        Args:
            load: Gives the pretrained network in float32, a new copy at each call.
            seed: The run's seed, for weights that start at random.
            init: Whether the pretrained network is wanted beside the policy.
        """

    def trained_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of what is trained of a network whose weights have these names and shapes: all."""
        return list(shapes.values())

    @abstractmethod
    def network(self, role: nn.Module) -> nn.Module:
        """The backbone's network that a role runs through."""

    @abstractmethod
    def save(self, role: nn.Module, backbone: Backbone, folder: Path) -> None:
        """Write what was trained where a pipeline would look for it below ``folder``."""
