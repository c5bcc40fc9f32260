"""Losses and gradients against formulas written as their public code has them, in double.

The predictions of a batch go in; what is compared are the loss of the batch and its gradients with
respect to them. lambda is 1 there, since none of that code has it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.objectives import Batch, Objective
from trainers.objectives.alpha_dpo import AlphaDPO
from trainers.objectives.anchored_dpo import AnchoredDPO
from trainers.objectives.conformance import example
from trainers.objectives.dmpo import DMPO
from trainers.objectives.dpo import DPO
from trainers.objectives.dspo import DSPO
from trainers.objectives.hinge import Hinge
from trainers.objectives.ipo import IPO
from trainers.objectives.kto import KTO
from trainers.objectives.linear_dpo import LinearDPO
from trainers.objectives.mapo import MaPO
from trainers.objectives.means import settled
from trainers.objectives.simpo import SimPO
from trainers.objectives.smpo import SmPO
from trainers.objectives.thermo_dpo import ThermoDPO

SOFT = torch.linspace(0.5, 1, 8).double()


@dataclass(frozen=True)
class Seen:
    """What public code has at hand: predictions of winners and losers, and their targets."""

    w: Tensor
    l: Tensor  # noqa: E741
    ref_w: Tensor
    ref_l: Tensor
    target_w: Tensor
    target_l: Tensor

    def errors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Per-sample mean squared errors: model on w and l, reference on w and l."""
        pairs = ((self.w, self.target_w), (self.l, self.target_l),
                 (self.ref_w, self.target_w), (self.ref_l, self.target_l))  # fmt: skip
        w, l, r_w, r_l = (F.mse_loss(*p, reduction="none").mean((1, 2, 3)) for p in pairs)  # noqa: E741
        return w, l, r_w, r_l

    def inside(self, beta: float) -> Tensor:
        """-beta / 2 (model_diff - ref_diff)."""
        w, l, r_w, r_l = self.errors()  # noqa: E741
        return -0.5 * beta * ((w - l) - (r_w - r_l))


def dmpo(seen: Seen) -> Tensor:
    policy = torch.distributions.Bernoulli(logits=seen.inside(2000))
    wanted = torch.distributions.Bernoulli(probs=torch.tensor(0.99, dtype=torch.float64))
    return torch.distributions.kl_divergence(policy, wanted).mean()


def linear(seen: Seen) -> Tensor:
    w, l, r_w, r_l = seen.errors()  # noqa: E741
    delta = ((w - l) - (r_w - r_l)).detach()
    return ((0.2 * 500 * delta + 0.5).clamp(1e-3, 1 - 1e-3) * (w - l)).mean()


def alpha(seen: Seen) -> Tensor:
    p = seen.inside(4000).sigmoid()
    a = 0.9999 * p.mean().detach()
    return ((p**a - (1 - a) - a * p) / (a * (a - 1))).mean()


def dspo(seen: Seen) -> Tensor:
    keep = 1 - seen.inside(300).sigmoid().view(-1, 1, 1, 1)
    return F.mse_loss(seen.w - 300 * keep * (seen.w - seen.ref_w), seen.target_w)


def dspo_sdxl(seen: Seen) -> Tensor:
    return (1 - seen.inside(5000).sigmoid()).square().mean()


def mapo(seen: Seen) -> Tensor:
    w, l, *_ = seen.errors()  # noqa: E741
    odds = [0.5 * x / (torch.exp(0.5 * x) - 1) for x in (w, l)]
    return w.mean() - 0.1 * F.logsigmoid(1000 * (odds[0] - odds[1])).mean()


def thermo(seen: Seen) -> Tensor:
    w, l, r_w, r_l = seen.errors()  # noqa: E741
    t = torch.full_like(w, 0.5)
    tau = t / 100
    inner = torch.exp(((w - r_w) - (l - r_l)) / tau) + torch.exp((1 - t) ** 2 * w / tau)
    return (tau * torch.log(1 + inner)).mean()


def smpo(seen: Seen) -> Tensor:
    return -F.logsigmoid(10 * (2 * SOFT - 1) * seen.inside(2000)).mean()


def sudo(seen: Seen) -> Tensor:
    return 0.5 * -F.logsigmoid(seen.inside(5000)).mean() + 0.5 * seen.errors()[0].mean()


def simpo(seen: Seen) -> Tensor:
    w, l, *_ = seen.errors()  # noqa: E741
    return -F.logsigmoid(250 * (l - w) - 1).mean()


CASES: dict[str, tuple[Objective, Callable[[Seen], Tensor]]] = {
    "dpo": (DPO(), lambda s: -F.logsigmoid(s.inside(5000)).mean()),
    "ipo": (IPO(), lambda s: (s.inside(5000) - 1).square().mean()),
    "hinge": (Hinge(), lambda s: F.relu(1 - s.inside(5000)).mean()),
    "dmpo": (DMPO(), dmpo),
    "linear-dpo": (LinearDPO(beta=500.0), linear),
    "alpha-dpo": (AlphaDPO(), alpha),
    "dspo": (DSPO(beta=300.0), dspo),
    "dspo of sdxl": (DSPO(form="sdxl"), dspo_sdxl),
    "mapo": (MaPO(), mapo),
    "simpo": (SimPO(), simpo),
    "thermo-dpo": (ThermoDPO(), thermo),
    "smpo": (SmPO(), smpo),
    "anchored-dpo": (AnchoredDPO(), sudo),
}


def pairs() -> Batch:
    """Eight pairs with all that any objective may look at; SNR 1, lambda 1, soft preferences."""
    batch = example(DSPO())
    ones = torch.ones(8).double()
    return replace(batch, scale=ones, snr=ones)


@pytest.mark.parametrize("case", CASES)
def test_parity(case: str) -> None:
    objective, public = CASES[case]
    batch = pairs()
    if case == "smpo":
        batch = replace(batch, preference=SOFT)
    winner, loser = batch.sides
    assert winner.reference is not None
    assert loser.reference is not None
    seen = Seen(winner.policy, loser.policy, winner.reference, loser.reference, winner.target,
                loser.target)  # fmt: skip
    ours = objective.loss(settled(objective, batch)).mean()
    theirs = public(seen)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    leaves = [winner.policy, loser.policy]
    found, wanted = (
        torch.autograd.grad(loss, leaves, materialize_grads=True) for loss in (ours, theirs)
    )
    assert float(wanted[0].abs().max()) > 0
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-12)


def test_parity_of_kto() -> None:
    """Single images: h = sigmoid(s beta (g - z)), z = max(0, mean g), the loss mean(1 - h)."""
    objective = KTO(beta=5000.0, positive_ratio=0.5)
    batch = example(objective)
    batch = replace(batch, scale=torch.ones(8).double())
    side, signs = batch.winner, 2 * batch.preference - 1
    assert side.reference_error is not None
    g = side.reference_error - F.mse_loss(side.policy, side.target, reduction="none").mean(
        (1, 2, 3)
    )
    z = g.mean().clamp(min=0).detach()
    theirs = (1 - (signs * 5000 * (g - z)).sigmoid()).mean()
    ours = objective.loss(settled(objective, batch)).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    found, wanted = (
        torch.autograd.grad(x, side.policy, retain_graph=True)[0] for x in (ours, theirs)
    )
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-12)
