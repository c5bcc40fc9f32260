"""Losses of pairs by hand: values, slopes, and what no such loss may depend on."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.objectives import Batch, Objective
from trainers.objectives.alpha_dpo import AlphaDPO
from trainers.objectives.anchored_dpo import AnchoredDPO
from trainers.objectives.auto_beta import AutoBeta
from trainers.objectives.conformance import of_errors
from trainers.objectives.dmpo import DMPO
from trainers.objectives.dpo import DPO
from trainers.objectives.hinge import Hinge
from trainers.objectives.ipo import IPO
from trainers.objectives.linear_dpo import LinearDPO
from trainers.objectives.means import settled
from trainers.objectives.simpo import SimPO
from trainers.objectives.smpo import SmPO
from trainers.objectives.thermo_dpo import ThermoDPO

Make = Callable[..., Batch]
ERRORS = ((0.100, 0.102), (0.140, 0.139))
MARGINS = (0.001, -0.0008)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean_loss(objective: Objective, batch: Batch) -> float:
    return objective.loss(settled(objective, batch)).mean().item()


GOLDEN: dict[str, tuple[Objective, float]] = {
    "dpo 2000": (DPO(beta=2000.0), 0.74218117673301),
    "dpo 5000": (DPO(), 1.1029088726677876),
    "dmpo 2000": (DMPO(), 1.612554989974807),
    "dmpo 5000": (DMPO(beta=5000.0), 1.8910885990207957),
    "linear 100": (LinearDPO(), -2.22e-4),
    "linear 250": (LinearDPO(beta=250.0), -1.80e-4),
    "linear 500": (LinearDPO(beta=500.0), -1.10e-4),
    "hinge on u": (Hinge(), 1.5),
    "hinge of dro": (Hinge(beta=2.0, gap=0.001), 0.0009),
    "alpha 2000": (AlphaDPO(beta=2000.0, adaptive=False), 0.18342200185867144),
    "alpha 4000": (AlphaDPO(adaptive=False), 0.26989374896662893),
    "alpha 2000, adaptive": (AlphaDPO(beta=2000.0), 0.2158570744168316),
    "alpha 4000, adaptive": (AlphaDPO(), 0.34718988927985656),
    "sudo": (AnchoredDPO(), 0.6114544363338938),
    "thermo 100": (ThermoDPO(), 0.030035400141418905),
    "thermo 1": (ThermoDPO(beta=1.0), 0.5594796215402145),
    "auto-beta": (AutoBeta(), 0.8411726124166122),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden(case: str, golden: Make) -> None:
    """Worked out beforehand from the formulas, in double; their sigma is one half (SNR 1)."""
    objective, expected = GOLDEN[case]
    assert mean_loss(objective, golden()) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.52, 0.6894540947900176), (0.60, 0.9554143759656761)]
)
def test_golden_of_soft_labels(p: float, expected: float, golden: Make) -> None:
    batch = replace(golden(), preference=torch.full((2,), p, dtype=torch.float64))
    assert mean_loss(SmPO(), batch) == pytest.approx(expected, rel=1e-12)


class Case(NamedTuple):
    """An objective of u, its slope in u, and the weight of the winner's error beside it."""

    objective: Any
    slope: Callable[[float], float]
    anchor: float = 0.0


def alpha_slope(u: float, a: float) -> float:
    """(p^(a - 1) - 1) / (a - 1) by p, which is p (1 - p) by u."""
    p = sigmoid(u)
    return (p ** (a - 1) - 1) / (a - 1) * p * (1 - p)


CASES: dict[str, Case] = {
    "dpo": Case(DPO(beta=1000.0), lambda u: -sigmoid(-u)),
    "smoothed": Case(DPO(beta=1000.0, label_smoothing=0.1), lambda u: 0.1 - sigmoid(-u)),
    "ipo": Case(IPO(beta=1000.0), lambda u: 2 * (u - 1)),
    "hinge": Case(Hinge(beta=1000.0, gap=0.5), lambda u: -1.0 if u < 0.5 else 0.0),
    "dmpo": Case(
        DMPO(beta=1000.0), lambda u: sigmoid(u) * sigmoid(-u) * (u - math.log(0.99 / 0.01))
    ),
    "alpha": Case(AlphaDPO(beta=1000.0, alpha=0.6, adaptive=False), lambda u: alpha_slope(u, 0.6)),
    "anchored": Case(
        AnchoredDPO(beta=1000.0, weight=0.7, sft=0.2), lambda u: -0.7 * sigmoid(-u), 0.2
    ),
    "smpo": Case(SmPO(beta=1000.0, gamma=3.0), lambda u: -3 * sigmoid(-3 * u)),
}


@pytest.mark.parametrize("case", CASES)
def test_slopes(case: str, golden: Make, slopes: Any) -> None:
    """Of L_w: -beta lambda / 2 times the slope in u; of L_l the opposite, without an anchor.

    beta 1000 with lambda 1.5 makes u = (0.75, -0.6).
    """
    objective, slope, anchor = CASES[case]
    winner, loser = slopes(objective, golden(1.5))
    by_hand = [-750 * slope(u) for u in (0.75, -0.6)]
    assert winner == pytest.approx([g + anchor for g in by_hand], rel=1e-9)
    assert loser == pytest.approx([-g for g in by_hand], rel=1e-9)


def test_the_mean_of_alpha_dpo_has_no_slope(golden: Make, slopes: Any) -> None:
    """a = 0.9999 mean p; at beta 2000 and 4000 0.52 and 0.524."""
    for beta, expected in ((2000.0, 0.5204899945463174), (4000.0, 0.5243369074873322)):
        objective = AlphaDPO(beta=beta)
        figures = objective.figures(settled(objective, golden()))
        assert figures["alpha"].tolist() == pytest.approx([expected] * 2, rel=1e-12)
        winner, _ = slopes(objective, golden())
        by_hand = [-beta / 2 * alpha_slope(beta / 2 * m, expected) for m in MARGINS]
        assert winner == pytest.approx(by_hand, rel=1e-9)
    alone = AlphaDPO(neighbours=1)
    found = alone.figures(settled(alone, golden()))["alpha"].tolist()
    assert found == pytest.approx([0.9999 * sigmoid(2000 * m) for m in MARGINS], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_dpo_near_its_limit(dtype: torch.dtype) -> None:
    """At a -> 1 it is p ln p - p + 1 within what 1 - a = 1e-4 makes of it, in float32 as well.

    As the formula stands, float32 would lose three digits and more there.
    """
    u = torch.tensor([-200.0, -20.0, -1.0, 0.0, 1.0, 20.0, 200.0], dtype=dtype)
    policy = torch.stack([torch.zeros_like(u), u]).requires_grad_()
    batch = of_errors(policy, torch.zeros_like(policy))
    loss = AlphaDPO(beta=2.0, adaptive=False).loss(batch)
    p = u.double().sigmoid()
    expected = p * torch.nn.functional.logsigmoid(u.double()) - p + 1
    torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=1e-6)
    (found,) = torch.autograd.grad(loss.sum(), policy)
    by_hand = torch.nn.functional.logsigmoid(u.double()) * p * (1 - p)
    torch.testing.assert_close(found[1].double(), by_hand, rtol=1e-3, atol=1e-6)


def test_dmpo_is_a_divergence() -> None:
    """0 at u = ln(99) and never less; 1.6145 at u = 0; -ln 0.99 for ever surer pairs."""
    objective = DMPO(beta=2.0)

    def at(u: float) -> float:
        errors = torch.tensor([[0.0], [u]], dtype=torch.float64)
        return float(objective.loss(of_errors(errors, torch.zeros(2, 1).double())))

    assert at(math.log(99)) == pytest.approx(0, abs=1e-12)
    assert at(0) == pytest.approx(1.614463080360851, rel=1e-12)
    assert at(1000) == pytest.approx(0.01005033585350145, rel=1e-12)
    assert at(-1000) == pytest.approx(-math.log(0.01), rel=1e-12)
    assert min(at(u / 10) for u in range(-200, 200)) > -1e-15


@pytest.mark.parametrize(
    ("beta", "weights"), [(100.0, [0.48, 0.516]), (250.0, [0.45, 0.54]), (500.0, [0.40, 0.58])]
)
def test_the_weight_of_linear_dpo_has_no_slope(
    beta: float, weights: list[float], golden: Make, slopes: Any
) -> None:
    """d/dL_w is r alone, d/dL_l is -r: the reference and beta enter by r, lambda likewise."""
    for objective, scale in ((LinearDPO(beta=beta), 1.0), (LinearDPO(beta=beta / 2), 2.0)):
        winner, loser = slopes(objective, golden(scale))
        assert winner == pytest.approx(weights, rel=1e-12)
        assert loser == pytest.approx([-w for w in weights], rel=1e-12)


def test_the_weight_of_linear_dpo_is_clipped(golden: Make, slopes: Any) -> None:
    """0.5 -+ 0.2 * 1e5 * margin is far outside: eta, and 1 - eta in the code or 1 in the paper."""
    code, paper = (LinearDPO(beta=1e5, highest=h, eta=0.01) for h in ("1 - eta", "1"))  # type: ignore[arg-type]
    assert slopes(code, golden())[0] == pytest.approx([0.01, 0.99])
    assert slopes(paper, golden())[0] == pytest.approx([0.01, 1.0])


def test_slopes_of_thermo_dpo(golden: Make, slopes: Any) -> None:
    """Shares of the three terms: of L_w that of the margin and (1 - t)^2 that of the anchor.

    t = 1 / (1 + sqrt(SNR)): a quarter at SNR 9.
    """
    objective = ThermoDPO(beta=50.0)
    batch = replace(golden(1.5), snr=torch.tensor([9.0, 1.0]).double())
    winner, loser = slopes(objective, batch)
    for n, t in enumerate((0.25, 0.5)):
        tau = t / 75
        terms = [1.0, math.exp(-MARGINS[n] / tau), math.exp((1 - t) ** 2 * ERRORS[n][0] / tau)]
        pair, anchor = (term / sum(terms) for term in terms[1:])
        assert winner[n] == pytest.approx(pair + (1 - t) ** 2 * anchor, rel=1e-9)
        assert loser[n] == pytest.approx(-pair, rel=1e-9)
        loss = tau * math.log(sum(terms))
        assert objective.loss(batch)[n].item() == pytest.approx(loss, rel=1e-9)


def test_thermo_dpo_without_noise_is_finite(slopes: Any) -> None:
    """At t = 1e-4 and beta 5000 tau is 2e-8: the largest of the three terms is what is left."""
    policy = torch.tensor([[0.2], [0.1]], dtype=torch.float64).requires_grad_()
    batch = of_errors(policy, torch.zeros(2, 1).double())
    batch = replace(batch, snr=torch.tensor([(1e4 - 1.0) ** 2], dtype=torch.float64))
    objective = ThermoDPO(beta=5000.0)
    assert objective.loss(batch).item() == pytest.approx((1 - 1e-4) ** 2 * 0.2, rel=1e-9)
    assert slopes(objective, batch)[0] == pytest.approx([(1 - 1e-4) ** 2])


def test_simpo(golden: Make, slopes: Any) -> None:
    """softplus(gamma - beta lambda / 2 (L_l - L_w)), at 500 and 1.5: 375 * (0.002, -0.001)."""
    objective = SimPO(gamma=0.4)
    u = [375 * 0.002 - 0.4, 375 * -0.001 - 0.4]
    loss = objective.loss(golden(1.5)).tolist()
    assert loss == pytest.approx([softplus(-x) for x in u], rel=1e-12)
    winner, loser = slopes(objective, golden(1.5))
    assert winner == pytest.approx([375 * sigmoid(-x) for x in u], rel=1e-9)
    assert loser == pytest.approx([-375 * sigmoid(-x) for x in u], rel=1e-9)
    bare = [replace(s, reference=None, reference_error=None) for s in golden(1.5).sides]
    assert objective.loss(replace(golden(1.5), sides=tuple(bare))).tolist() == loss


@pytest.mark.parametrize("make", [Hinge, IPO, DPO])
def test_a_tie_is_the_mean_over_both_labels(make: Callable[..., Any], golden: Make) -> None:
    """p f(u) + (1 - p) f(-u): half of either at p = 0.5, and at 0.8 in proportion."""
    objective = make(beta=2000.0)
    batch = golden()
    back = replace(batch, sides=(batch.loser, batch.winner))
    forth, other = objective.loss(batch), objective.loss(back)
    for p in (0.5, 0.8):
        soft = replace(batch, preference=torch.full((2,), p, dtype=torch.float64))
        torch.testing.assert_close(objective.loss(soft), p * forth + (1 - p) * other)


def test_smpo_of_certain_labels_is_dpo(golden: Make) -> None:
    found = SmPO(beta=50.0, gamma=4.0).loss(golden())
    torch.testing.assert_close(found, DPO(beta=200.0).loss(golden()))


error = st.floats(0, 4, allow_subnormal=False)
OF_MARGINS: list[Objective] = [
    DPO(beta=20.0), IPO(beta=20.0), Hinge(beta=20.0), DMPO(beta=20.0), SmPO(beta=2.0),
    AlphaDPO(beta=20.0), AutoBeta(),
]  # fmt: skip


@pytest.mark.parametrize("objective", OF_MARGINS, ids=lambda o: o.name)
@settings(max_examples=30)
@given(error, error, error, error, st.floats(0, 1), st.floats(0, 1))
def test_what_policy_and_reference_share_changes_nothing(
    objective: Objective, a: float, b: float, c: float, d: float, winner: float, loser: float
) -> None:
    """A constant on L and R of one image cancels in R - L."""
    plain = torch.tensor([[a], [b]]).double(), torch.tensor([[c], [d]]).double()
    both = torch.tensor([[winner], [loser]]).double()
    found = [mean_loss(objective, of_errors(p, r)) for p, r in (plain, [x + both for x in plain])]
    assert found[1] == pytest.approx(found[0], rel=1e-6, abs=1e-9)


@settings(max_examples=30)
@given(error, error, error, error, st.floats(0, 1))
def test_the_weight_of_linear_dpo_shares_nothing_either(
    a: float, b: float, c: float, d: float, both: float
) -> None:
    """r as above; and L_w - L_l where the constant is that of both images."""
    objective = LinearDPO(beta=0.1)
    policy, reference = torch.tensor([[a], [b]]).double(), torch.tensor([[c], [d]]).double()
    plain = mean_loss(objective, of_errors(policy, reference))
    moved = mean_loss(objective, of_errors(policy + both, reference + both))
    assert moved == pytest.approx(plain, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("make", [AnchoredDPO, ThermoDPO, SimPO])
def test_what_holds_the_winner_does_see_the_size_of_errors(
    make: Callable[..., Any], golden: Make
) -> None:
    """Of 0.3 on L and R of the winner: an anchor, or no reference, and the loss moves."""
    batch = golden()
    moved = replace(
        batch.winner,
        error=batch.winner.error + 0.3,
        reference_error=batch.winner.gain + batch.winner.error + 0.3,
    )
    objective = make()
    shift = objective.loss(replace(batch, sides=(moved, batch.loser))) - objective.loss(batch)
    assert shift.min().item() > 0.01
