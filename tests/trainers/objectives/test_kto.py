"""Diffusion-KTO by hand: every utility, every offset."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainers.objectives import Batch
from trainers.objectives.kto import KTO
from trainers.objectives.means import settled

Make = Callable[..., Batch]
GAINS = [0.0005, -0.0003, -0.0005, 0.0005]
SIGNS = [1, 1, -1, -1]
Z = 5e-5


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("beta", "expected"), [(1000.0, 0.4881204969766345), (5000.0, 0.47800986303558385)]
)
def test_golden(beta: float, expected: float, singles: Make) -> None:
    """z = max(0, mean R - L) = 5e-5."""
    objective = KTO(beta=beta)
    batch = settled(objective, singles())
    assert objective.figures(batch)["z"].tolist() == pytest.approx([Z] * 4)
    assert objective.loss(batch).mean().item() == pytest.approx(expected, rel=1e-12)


UTILITIES: dict[str, Callable[[int, float], float]] = {
    "kahneman-tversky": lambda s, x: sigmoid(s * x),
    "loss-averse": lambda s, x: math.log(sigmoid(s * x)),
    "risk-seeking-1": lambda s, x: -s * math.log(sigmoid(-x)),
    "risk-seeking-2": lambda s, x: s * math.exp(x / 100) - 1,
    "risk-seeking-3": lambda s, x: -math.log(sigmoid(-s * x)),
}
SLOPES: dict[str, Callable[[int, float], float]] = {
    "kahneman-tversky": lambda s, x: s * sigmoid(s * x) * sigmoid(-s * x),
    "loss-averse": lambda s, x: s * sigmoid(-s * x),
    "risk-seeking-1": lambda s, x: s * sigmoid(x),
    "risk-seeking-2": lambda s, x: s * math.exp(x / 100) / 100,
    "risk-seeking-3": lambda s, x: s * sigmoid(s * x),
}
"""dU/dx."""


@pytest.mark.parametrize("utility", UTILITIES)
def test_utilities(utility: Any, singles: Make, slopes: Any) -> None:
    """w (1 - U(s, beta lambda (R - L - z))); its slope in L is w beta lambda dU/dx: none in z."""
    objective = KTO(utility=utility, desirable_weight=1.3, undesirable_weight=0.7)
    x = [1000 * 1.5 * (gain - Z) for gain in GAINS]
    weights = [1.3 if s > 0 else 0.7 for s in SIGNS]
    cases = list(zip(weights, SIGNS, x, strict=True))
    loss = objective.loss(settled(objective, singles(1.5)))
    assert loss.tolist() == pytest.approx([w * (1 - UTILITIES[utility](s, v)) for w, s, v in cases])
    (found,) = slopes(objective, singles(1.5))
    assert found == pytest.approx([1500 * w * SLOPES[utility](s, v) for w, s, v in cases])


def test_offsets(singles: Make) -> None:
    """By classes: (mean of 5e-4, -3e-4 plus mean of -5e-4, 5e-4) / 2 = 5e-5; never cut off at 0."""
    batch = singles()

    def z(batch: Batch, **settings: Any) -> list[float]:
        objective = KTO(**settings)
        found: list[float] = objective.figures(settled(objective, batch))["z"].tolist()
        return found

    assert z(batch, offset="classes") == pytest.approx([(1e-4 + 0) / 2] * 4)
    alone = replace(batch, preference=torch.ones(4).double())
    assert z(alone, offset="classes") == pytest.approx([5e-5 / 2] * 4)
    other = torch.tensor([-4e-4, -2e-4, 0, 0]).double()
    assert z(replace(batch, mismatched=other), offset="mismatched") == pytest.approx([-1.5e-4] * 4)
    # Pairs of rows: means 1e-4 and 0; a mean below 0 counts as 0.
    assert z(batch, neighbours=2) == pytest.approx([1e-4, 1e-4, 0, 0])
    assert z(batch, neighbours=1) == pytest.approx([5e-4, 0, 0, 5e-4])


def test_a_common_shift_of_errors_changes_nothing(singles: Make) -> None:
    """Of L and R alike: only R - L is looked at."""
    batch = singles()
    side = batch.winner
    assert side.reference_error is not None
    moved = replace(side, error=side.error + 0.1, reference_error=side.reference_error + 0.1)
    objective = KTO()
    for got, want in zip(
        objective.loss(settled(objective, replace(batch, sides=(moved,)))).tolist(),
        objective.loss(settled(objective, batch)).tolist(),
        strict=True,
    ):
        assert got == pytest.approx(want, rel=1e-9)


def test_what_it_declares() -> None:
    assert (KTO.images, KTO.referenced, KTO().winners, KTO().group) == (1, True, 0.8, None)
    assert (KTO(offset="mismatched").mismatched, KTO().mismatched) == (True, False)
