"""What the reference holds after every step, on a model of one weight and scripted divergences."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from trainers.errors import UserError
from trainers.references import REFERENCES, Event, Reference, ReferenceRule
from trainers.references.ema import EMA
from trainers.references.frozen import Frozen
from trainers.references.hard_copy import HardCopy
from trainers.references.soft import Soft
from trainers.registry import build

NAN = math.nan
INF = math.inf


def model(value: float) -> nn.Linear:
    """A model of one weight."""
    linear = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    return assign(linear, value)


@torch.no_grad()
def assign(linear: nn.Linear, value: float) -> nn.Linear:
    """Set the weight."""
    linear.weight.fill_(value)
    return linear


def weight(module: nn.Module) -> float:
    """The weight."""
    assert isinstance(module, nn.Linear)
    return module.weight.item()


class Ride:
    """A reference taken along a policy whose weight is the number of the step."""

    def __init__(self, rule: ReferenceRule, init: float = 0.0) -> None:
        self.init = model(init)
        self.policy = model(init)
        self.reference: Reference = rule.start(self.init)
        self.step = 0
        self.events: list[Event] = []
        self.measured: list[tuple[float, int]] = []
        """Weight of the model whose divergence was asked for, and the number of images."""

    def go(self, divergences: Sequence[float | None]) -> list[float]:
        """The reference after each of as many steps; None where D must not be asked for."""
        held = []
        for value in divergences:
            self.step += 1
            assign(self.policy, self.step)

            def divergence(network: nn.Module, n: int, value: float | None = value) -> float:
                assert value is not None, "the divergence was measured where it is not needed"
                self.measured.append((weight(network), n))
                return value

            self.events.append(self.reference.after_step(self.step, self.policy, divergence))
            held.append(weight(self.reference.model))
        assert weight(self.init) == 0.0
        return held

    @property
    def actions(self) -> str:
        """The first letters of what was done: none, update, freeze, reinit, skip."""
        return "".join(event.action[0] for event in self.events)


SCRIPT = [0.1, 0.2, 0.9, 0.3, 0.95, 0.1]


@pytest.mark.parametrize(
    ("on_exceed", "keep", "held", "actions"),
    [
        ("freeze", "last_under", [1, 2, 2, 2, 2, 2], "uufnnn"),
        ("freeze", "first_over", [1, 2, 3, 3, 3, 3], "uufnnn"),
        ("reinit", "last_under", [1, 2, 0, 4, 0, 6], "uururu"),
        ("reinit", "first_over", [1, 2, 0, 4, 0, 6], "uururu"),
        ("skip", "last_under", [1, 2, 2, 4, 4, 6], "uususu"),
        ("skip", "first_over", [1, 2, 2, 4, 4, 6], "uususu"),
    ],
)
def test_gate(on_exceed: Any, keep: Any, held: list[float], actions: str) -> None:
    """Every step proposes the policy, whose divergence passes 0.5 at steps 3 and 5 only.

    Freezing is for ever: the later ones under the bound are not even measured (arXiv 2505.18736:
    the reference is frozen near the boundary; keeping the last under it or the first over it are
    the two readings). Re-Init puts the pretrained weight 0 back and goes on.
    """
    ride = Ride(HardCopy(tau=1, delta=0.5, on_exceed=on_exceed, keep=keep, subset=5))
    frozen = on_exceed == "freeze"
    assert ride.go([*SCRIPT[:3], *([None] * 3 if frozen else SCRIPT[3:])]) == held
    assert ride.actions == actions
    assert ride.measured == [(step, 5) for step in range(1, 4 if frozen else 7)]
    expected = [*SCRIPT[:3], *([None] * 3 if frozen else SCRIPT[3:])]
    assert [event.divergence for event in ride.events] == expected


def test_tau() -> None:
    """Only every third step updates, and only there is the divergence measured."""
    ride = Ride(HardCopy(tau=3, delta=0.5))
    assert ride.go([None, None, 0.1, None, None, 0.2, None]) == [0, 0, 3, 3, 3, 6, 6]
    assert ride.actions == "nnunnun"


def test_the_bound_itself_passes() -> None:
    """The gate shuts when the divergence exceeds delta; a negative divergence never does."""
    ride = Ride(HardCopy(tau=1, delta=0.5))
    assert ride.go([0.5, -3.0, math.nextafter(0.5, 1)]) == [1, 2, 2]
    assert ride.actions == "uuf"


def test_delta_zero_bounds() -> None:
    """Zero is a bound, not "no gate"."""
    ride = Ride(HardCopy(tau=1, delta=0.0))
    assert ride.go([0.0, 1e-12]) == [1, 1]


@pytest.mark.parametrize("value", [1e9, INF, NAN])
@pytest.mark.parametrize("monitor", [True, False])
def test_without_delta_nothing_gates(value: float, monitor: bool) -> None:
    """No bound: every update is made; the divergence is a mere record, asked for if monitored."""
    ride = Ride(HardCopy(tau=1, delta=None, monitor=monitor))
    assert ride.go([value if monitor else None] * 3) == [1, 2, 3]
    assert ride.actions == "uuu"
    assert [e.divergence is None for e in ride.events] == [not monitor] * 3


def test_a_gate_measures_even_if_not_monitored() -> None:
    """``monitor`` is about the record; a bound cannot be kept without measuring."""
    ride = Ride(HardCopy(tau=1, delta=0.5, monitor=False))
    assert ride.go([0.1, 0.9]) == [1, 1]


@pytest.mark.parametrize(
    ("on_exceed", "held"), [("freeze", [1, 1, 1]), ("reinit", [1, 0, 3]), ("skip", [1, 1, 3])]
)
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_divergence_that_is_no_number_never_passes(
    on_exceed: Any, held: list[float], value: float
) -> None:
    """NaN compares false with everything, so "exceeds" must not be written as D > delta."""
    ride = Ride(HardCopy(tau=1, delta=0.5, on_exceed=on_exceed))
    assert ride.go([0.1, value, None if on_exceed == "freeze" else 0.1]) == held


def test_frozen_is_the_pretrained_model_itself() -> None:
    """No copy, nothing to save, nothing measured, nothing moved."""
    ride = Ride(Frozen())
    assert ride.reference.model is ride.init
    assert ride.go([None] * 4) == [0, 0, 0, 0]
    assert ride.actions == "nnnn"
    assert ride.reference.modules() == {}


@pytest.mark.parametrize("rule", [HardCopy(tau=1), Soft(tau=1), EMA()])
def test_an_updating_reference_is_a_frozen_copy(rule: ReferenceRule) -> None:
    """It shares storage with neither the pretrained model nor the policy and takes no gradient."""
    init = model(0.0).requires_grad_(False)
    policy = model(4.0)
    reference = rule.start(init)
    reference.after_step(1, policy, lambda network, n: 0.0)
    assert weight(reference.model) != 0.0
    held = weight(reference.model)
    assign(policy, 99.0)
    assert weight(reference.model) == held
    assert weight(init) == 0.0
    assert not any(p.requires_grad for p in reference.model.parameters())
    assert reference.modules() == {"reference": reference.model}


def test_soft_update_by_hand() -> None:
    """ref <- 0.6 theta + 0.4 ref from 0, theta = step: 0.6, 1.2 + 0.24, 1.8 + 0.576.

    TR-DPO, arXiv 2404.09656. The gate looks at the mixture, which is what would be held.
    """
    ride = Ride(Soft(tau=1, alpha=0.6, delta=0.5))
    assert ride.go([0.1, 0.1, 0.1]) == pytest.approx([0.6, 1.44, 2.376], rel=1e-12)
    assert [w for w, _ in ride.measured] == pytest.approx([0.6, 1.44, 2.376], rel=1e-12)


def test_soft_update_gated() -> None:
    """Beyond the bound: the last mixture under it, or the first over it (1.2 + 0.24)."""
    under, over = (Ride(Soft(tau=1, alpha=0.6, delta=0.5, keep=k)) for k in _KEEP)
    assert under.go([0.1, 0.9, None]) == pytest.approx([0.6, 0.6, 0.6])
    assert over.go([0.1, 0.9, None]) == pytest.approx([0.6, 1.44, 1.44])


_KEEP: tuple[Any, Any] = ("last_under", "first_over")


def test_soft_update_with_tau() -> None:
    """Only even steps: 0.6 * 2 = 1.2, then 0.6 * 4 + 0.4 * 1.2 = 2.88."""
    ride = Ride(Soft(tau=2, alpha=0.6, monitor=False))
    assert ride.go([None] * 4) == pytest.approx([0, 1.2, 1.2, 2.88])


def test_ema_closed_form() -> None:
    """With theta_i = i: ref_n = (1 - d) sum_i d^(n - i) i = n - d (1 - d^n) / (1 - d).

    Updated at every step, unless told otherwise.
    """
    decay = 0.9
    held = Ride(EMA(decay=decay)).go([None] * 30)
    closed = [n - decay * (1 - decay**n) / (1 - decay) for n in range(1, 31)]
    assert held == pytest.approx(closed, rel=1e-10)


@pytest.mark.parametrize("rule", [Soft(tau=1, alpha=1.0, delta=0.5), EMA(decay=0.0, delta=0.5)])
def test_mixing_everything_is_a_hard_copy(rule: ReferenceRule) -> None:
    """ref <- 1 * theta + 0 * ref."""
    assert Ride(rule).go([0.1, 0.2, 0.9]) == Ride(HardCopy(tau=1, delta=0.5)).go([0.1, 0.2, 0.9])


@pytest.mark.parametrize("shut", [False, True])
def test_state_goes_round_through_json(shut: bool) -> None:
    """A gate that had shut stays shut in a reference made anew; an open one goes on updating."""
    rule = HardCopy(tau=1, delta=0.5)
    first = Ride(rule)
    first.go([0.1, 0.9 if shut else 0.2])
    second = Ride(rule)
    second.reference.modules()["reference"].load_state_dict(first.reference.model.state_dict())
    second.reference.load_state(json.loads(json.dumps(first.reference.state())))
    second.step = 2
    assert second.go([None if shut else 0.1]) == [1 if shut else 3]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"name": "hard-copy", "tau": 0}, "tau"),
        ({"name": "hard-copy", "tau": 1.5}, "tau"),
        ({"name": "hard-copy", "delta": -0.1}, "delta"),
        ({"name": "hard-copy", "delta": NAN}, "delta"),
        ({"name": "hard-copy", "delta": INF}, "delta"),
        ({"name": "hard-copy", "on_exceed": "stop"}, "on_exceed"),
        ({"name": "hard-copy", "keep": "best"}, "keep"),
        ({"name": "hard-copy", "subset": 0}, "subset"),
        ({"name": "soft", "alpha": 0}, "alpha"),
        ({"name": "soft", "alpha": 1.1}, "alpha"),
        ({"name": "ema", "decay": 1}, "decay"),
        ({"name": "ema", "decay": -0.1}, "decay"),
        ({"name": "frozen", "tau": 16}, "tau"),
    ],
)
def test_bad_settings_name_their_field(settings: dict[str, Any], field: str) -> None:
    """An infinite delta has no JSON text, so it could not be part of a run's identity."""
    with pytest.raises(UserError, match=rf"reference '{settings['name']}': {field}: "):
        build(REFERENCES, settings)
