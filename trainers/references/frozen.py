"""The reference of DPO: the pretrained model, for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainers.references.base import Divergence, Event, Reference, ReferenceRule

if TYPE_CHECKING:
    from torch import nn


class Frozen(ReferenceRule):
    """``ref = init`` throughout."""

    name: ClassVar[str] = "frozen"
    own_network: ClassVar[bool] = False

    def unmoved_steps(self, steps: int) -> int:
        """All of them."""
        return steps

    def start(self, init: nn.Module) -> Reference:
        """See the base class; no copy is made."""
        return FrozenReference(init)


class FrozenReference(Reference):
    """A reference without state of its own."""

    def __init__(self, init: nn.Module) -> None:
        self.model = init

    def after_step(self, step: int, policy: nn.Module, divergence: Divergence) -> Event:
        """Do nothing."""
        return Event("none", None)

    def modules(self) -> dict[str, nn.Module]:
        """Nothing: the pretrained network is read again."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""
