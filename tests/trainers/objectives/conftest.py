"""The two pairs whose losses were worked out by hand, and gradients by their errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainers.objectives import Batch, Objective
from trainers.objectives.conformance import of_errors
from trainers.objectives.means import settled

WINNERS, LOSERS = ([0.100, 0.140], [0.1005, 0.1397]), ([0.102, 0.139], [0.1015, 0.1395])
"""Errors of policy and reference: (L_w - L_l) - (R_w - R_l) is -0.001 and +0.0008."""


@pytest.fixture(scope="session")
def golden() -> Callable[..., Batch]:
    """The two pairs, with a lambda for both."""

    def make(scale: float | Tensor = 1.0) -> Batch:
        policy = torch.tensor([WINNERS[0], LOSERS[0]], dtype=torch.float64)
        reference = torch.tensor([WINNERS[1], LOSERS[1]], dtype=torch.float64)
        return of_errors(policy.requires_grad_(), reference, scale)

    return make


@pytest.fixture(scope="session")
def singles() -> Callable[..., Batch]:
    """The same four images, each a row of its own: two desirable ones, then two others."""

    def make(scale: float = 1.0) -> Batch:
        policy = torch.tensor([WINNERS[0] + LOSERS[0]], dtype=torch.float64)
        reference = torch.tensor([WINNERS[1] + LOSERS[1]], dtype=torch.float64)
        batch = of_errors(policy.requires_grad_(), reference, scale)
        batch.preference[2:] = 0
        return batch

    return make


@pytest.fixture(scope="session")
def slopes() -> Callable[[Objective, Batch], list[list[float]]]:
    """d (sum of losses) / dL of winners and of losers, through errors and predictions alike."""

    def found(objective: Objective, batch: Batch) -> list[list[float]]:
        loss = objective.loss(settled(objective, batch)).sum()
        own = [side.error for side in batch.sides]
        found = torch.autograd.grad(loss, own, materialize_grads=True)
        return [gradient.tolist() for gradient in found]

    return found
