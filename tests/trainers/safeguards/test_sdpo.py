"""Diffusion-SDPO: values left alone, gradients of the loser as its public code slows them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainers.objectives import Batch, Objective
from trainers.objectives.conformance import example
from trainers.objectives.dpo import DPO
from trainers.objectives.dspo import DSPO
from trainers.objectives.means import settled
from trainers.safeguards.sdpo import SDPO

ROWS = 8


def close_pairs(objective: Objective, seed: int = 0) -> Batch:
    """Losers whose residuals are like the winners', more or less, so that factors differ."""
    batch = example(objective, seed)
    winner, loser = batch.sides
    share = torch.linspace(-0.5, 2, ROWS, dtype=torch.float64).view(-1, 1, 1, 1)
    moved = (loser.target + share * winner.residual + 0.3 * loser.residual).detach()
    policy = moved.requires_grad_()
    error = (policy - loser.target).square().flatten(1).mean(1)
    return replace(batch, sides=(winner, replace(loser, policy=policy, error=error)))


def public_loss(batch: Batch, beta: float, mu: float) -> Tensor:
    """By autograd on the mean errors of the whole batch: lambda is one scalar, the loss DPO's.

    L_l becomes sg(L_l) + lambda (L_l - sg(L_l)).
    """
    winner, loser = batch.sides
    g_w, g_l = (
        torch.autograd.grad(side.error.mean(), side.policy, retain_graph=True)[0].flatten()
        for side in batch.sides
    )
    dot = g_w @ g_l
    factor = ((1 - mu) * (g_w @ g_w) / (dot + 1e-9)).clamp(0, 1) if dot > 0 else torch.tensor(1.0)
    assert winner.reference_error is not None
    assert loser.reference_error is not None
    l_l = loser.error.detach() + factor * (loser.error - loser.error.detach())
    u = -0.5 * beta * ((winner.error - l_l) - (winner.reference_error - loser.reference_error))
    return torch.log1p(torch.exp(-u)).mean()


def gradients(loss: Tensor, batch: Batch) -> list[Tensor]:
    policy = [side.policy for side in batch.sides]
    return list(torch.autograd.grad(loss, policy, retain_graph=True))


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_one_factor_for_the_batch_as_in_the_public_code(mu: float) -> None:
    """Loss and gradients to 1e-9; the epsilon is per row here, so 8 times that of the batch."""
    objective = DPO(beta=20.0)
    batch = close_pairs(objective)
    batch = replace(batch, scale=torch.ones(ROWS).double())
    guard = SDPO(mu=mu, epsilon=8e-9)
    guarded = guard.guard(settled(guard, batch))
    ours = objective.loss(guarded).mean()
    theirs = public_loss(batch, 20.0, mu)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for got, want in zip(gradients(ours, batch), gradients(theirs, batch), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-15)


def test_a_factor_for_each_row_by_hand() -> None:
    """min(1, (1 - mu) |a|^2 / <a, b>) of residuals a, b; 1 where they oppose each other."""
    objective, guard = DPO(beta=20.0), SDPO(mu=0.5, neighbours=1, epsilon=0.0)
    batch = settled(guard, close_pairs(objective))
    factors = guard.figures(batch)["factor"]
    for row in range(ROWS):
        a, b = (side.residual[row].detach().flatten() for side in batch.sides)
        dot = float(a @ b)
        expected = min(1.0, 0.5 * float(a @ a) / dot) if dot > 0 else 1.0
        assert float(factors[row]) == pytest.approx(expected, rel=1e-12)
    assert len(set(factors.tolist())) > 2
    plain = gradients(objective.loss(batch).sum(), batch)
    slowed = gradients(objective.loss(guard.guard(batch)).sum(), batch)
    assert torch.equal(plain[0], slowed[0])
    torch.testing.assert_close(slowed[1], plain[1] * factors.view(-1, 1, 1, 1))


@pytest.mark.parametrize("make", [lambda: DPO(beta=20.0), lambda: DSPO(beta=20.0)])
def test_no_value_changes(make: Callable[[], Any]) -> None:
    """To the bit; of DSPO the loser is reached through the logit alone, and slowed there."""
    objective, guard = make(), SDPO(mu=0.9)
    batch = close_pairs(objective)
    guarded = guard.guard(settled(guard, batch))
    plain, slowed = objective.loss(batch), objective.loss(guarded)
    assert torch.equal(plain, slowed)
    before, after = (gradients(loss.sum(), batch) for loss in (plain, slowed))
    factor = float(guard.figures(settled(guard, batch))["factor"][0])
    assert 0 < factor < 1
    torch.testing.assert_close(after[1], factor * before[1], rtol=1e-9, atol=1e-15)


def test_groups_have_a_factor_each() -> None:
    """Rows 0-3 and 4-7 as batches of their own."""
    objective = DPO(beta=20.0)
    whole, halves = close_pairs(objective), SDPO(neighbours=4, epsilon=0.0)
    found = halves.figures(settled(halves, whole))["factor"]
    alone = SDPO(epsilon=0.0)
    for first in (0, 4):
        part = replace(
            whole,
            sides=tuple(
                replace(s, policy=s.policy[first : first + 4], target=s.target[first : first + 4])
                for s in whole.sides
            ),
            preference=whole.preference[:4],
        )
        expected = alone.figures(settled(alone, part))["factor"]
        torch.testing.assert_close(found[first : first + 4], expected)
