"""IPO by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainers.objectives import Batch
from trainers.objectives.ipo import IPO

Make = Callable[..., Batch]


def test_values(golden: Make) -> None:
    """At beta 2000 u = (1, -0.8) and tau 0.5 asks for 1: losses 0 and 1.8^2."""
    assert IPO(beta=2000.0).loss(golden()).tolist() == pytest.approx([0.0, 3.24], abs=1e-12)
    # The form of diffusers, mended: the margin against 1 / (2 * 2500).
    literal = IPO(beta=2.0, tau=2500.0).loss(golden()).tolist()
    assert literal == pytest.approx([(0.001 - 2e-4) ** 2, (-0.0008 - 2e-4) ** 2], rel=1e-9)


def test_gradient(golden: Make, slopes: Any) -> None:
    """d/dL_w of (u - 1)^2 with u = -beta lambda / 2 L_w + ...: -beta lambda (u - 1); L_l opposite.

    beta 1000 with lambda 1.5 makes u = (0.75, -0.6).
    """
    expected = [-1500 * (u - 1) for u in (0.75, -0.6)]
    winner, loser = slopes(IPO(beta=1000.0), golden(1.5))
    assert winner == pytest.approx(expected, rel=1e-9)
    assert loser == pytest.approx([-g for g in expected], rel=1e-9)


def test_a_tie_is_the_mean_over_both_labels(golden: Make) -> None:
    batch = replace(golden(), preference=torch.full((2,), 0.5).double())
    found = IPO(beta=2000.0).loss(batch).tolist()
    assert found == pytest.approx([((u - 1) ** 2 + (u + 1) ** 2) / 2 for u in (1.0, -0.8)])
