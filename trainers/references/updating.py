"""References that follow the policy, every so many steps and within a bound on the divergence."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trainers.average import mix_in
from trainers.references.base import Divergence, Event, Reference, ReferenceRule

if TYPE_CHECKING:
    from torch import Tensor, nn


class Updating(ReferenceRule, ABC):
    """A reference that follows the policy, ``ref <- mix * policy + (1 - mix) * ref``, with a gate.

    The gate looks at the divergence that the reference would have after an update. Beyond
    ``delta`` the update is not made, and ``on_exceed`` says what happens instead. The paper says
    that the reference is frozen "near the delta-boundary"; that the last reference under the bound
    is kept, and that the gate stays shut, are our readings, and the others are settings.
    """

    tau: int = Field(ge=1)
    """Optimiser steps between two updates."""
    delta: float | None = Field(None, ge=0)
    """Bound on the divergence, a per-element mean; None for no gate."""
    on_exceed: Literal["freeze", "reinit", "skip"] = "freeze"
    """Never update again; go back to the pretrained model; or skip this update only."""
    keep: Literal["last_under", "first_over"] = "last_under"
    """Which reference a freeze keeps."""
    subset: int = Field(16, ge=1)
    """Preferred images of the batch on which the divergence is measured, at most."""
    monitor: bool = True
    """Measure the divergence even where there is no gate to need it."""

    def unmoved_steps(self, steps: int) -> int:
        """Those up to the first update."""
        return min(steps, self.tau)

    @property
    def acts_every(self) -> int:
        """``tau``."""
        return self.tau

    def measured_images(self, batch_size: int) -> int:
        """See the base class: those of the divergence."""
        measures = self.delta is not None or self.monitor
        return min(self.subset, batch_size) if measures else 0

    @property
    @abstractmethod
    def mix(self) -> float:
        """Share of the policy in the updated reference, in (0, 1]."""

    def start(self, init: nn.Module) -> Reference:
        """See the base class."""
        return UpdatingReference(self, init)


class UpdatingReference(Reference):
    """The state of an updating reference: a network of its own, and whether the gate is open."""

    def __init__(self, rule: Updating, init: nn.Module) -> None:
        self.rule = rule
        self.init = init
        self.model = copy.deepcopy(init)
        self.open = True

    def after_step(self, step: int, policy: nn.Module, divergence: Divergence) -> Event:
        """Every tau steps: measure, then update or do what the gate demands."""
        if not self.open or step % self.rule.tau:
            return Event("none", None)
        candidate, undo = self._propose(policy)
        gated = self.rule.delta is not None
        measured: float | None = None
        if gated or self.rule.monitor:
            measured = divergence(candidate, self.rule.subset)
        # A divergence that is not a number must never pass the gate.
        if self.rule.delta is None or (measured is not None and measured <= self.rule.delta):
            _copy(candidate.parameters(), self.model)
            return Event("update", measured)
        if self.rule.on_exceed == "freeze":
            self.open = False
        if self.rule.on_exceed == "reinit":
            _copy(self.init.parameters(), self.model)
        elif self.rule.on_exceed == "freeze" and self.rule.keep == "first_over":
            _copy(candidate.parameters(), self.model)
        else:
            _copy(undo, self.model)
        return Event(self.rule.on_exceed, measured)

    def _propose(self, policy: nn.Module) -> tuple[nn.Module, Iterable[Tensor]]:
        """The network that the reference would be, and the weights that it has.

        The whole policy needs no copy to be measured; a mixture is made in place.
        """
        if self.rule.mix == 1:
            return policy, self.model.parameters()
        undo = [weight.detach().clone() for weight in self.model.parameters()]
        mix_in(self.model, policy, self.rule.mix)
        return self.model, undo

    def modules(self) -> dict[str, nn.Module]:
        """See the base class."""
        return {"reference": self.model}

    def state(self) -> dict[str, Any]:
        """See the base class."""
        return {"open": self.open}

    def load_state(self, state: dict[str, Any]) -> None:
        """See the base class."""
        self.open = bool(state["open"])


def _copy(source: Iterable[Tensor], target: nn.Module) -> None:
    for to, value in zip(target.parameters(), source, strict=True):
        if to is not value:
            to.detach().copy_(value.detach())
