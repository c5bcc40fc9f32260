"""The reference model: what the policy is compared with, and how it follows the policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import nn

Divergence: TypeAlias = "Callable[[nn.Module, int], float]"
"""``divergence(model, n)`` is the mean of ``mse(model) - mse(init)`` over at most ``n`` preferred
images: how much worse than the pretrained model a model denoises preferred data (Kang et al. 2025,
arXiv 2505.18736, Eq. 8; per element, without the factor T)."""


class Event(NamedTuple):
    """What the reference did at a step, and the divergence it measured (None if it did not)."""

    action: Literal["none", "update", "freeze", "reinit", "skip"]
    divergence: float | None


class Reference(ABC):
    """A reference model in a run."""

    model: nn.Module

    @abstractmethod
    def after_step(self, step: int, policy: nn.Module, divergence: Divergence) -> Event:
        """Act after optimiser step ``step``, counted from 1."""

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Modules that a checkpoint must hold."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """JSON-able state that a checkpoint must hold."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""


class ReferenceRule(Settings, ABC):
    """The settings of a reference."""

    own_network: ClassVar[bool] = True
    """Whether it holds a network of its own, besides policy and pretrained network."""

    def unmoved_steps(self, steps: int) -> int:
        """Of the first ``steps`` of a run, those in which it is the pretrained network still."""
        return 0

    @property
    def acts_every(self) -> int:
        """Optimiser steps from one at which it acts to the next."""
        return 1

    def measured_images(self, batch_size: int) -> int:
        """Images of a batch that two networks run on when it acts; none unless it measures."""
        return 0

    @abstractmethod
    def start(self, init: nn.Module) -> Reference:
        """The reference at the start of a run, from the frozen pretrained network."""
