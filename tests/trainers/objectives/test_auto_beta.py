"""DPO with a beta that follows the margin, by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainers.objectives import Batch
from trainers.objectives.auto_beta import AutoBeta
from trainers.objectives.conformance import of_errors
from trainers.objectives.means import as_state, settled

Make = Callable[..., Batch]
WANTED = 2 * math.log(4)
"""-2 logit(0.2)."""


def test_the_first_step(golden: Make) -> None:
    """beta = 2 ln 4 / mean(0.001, 0.0008) = 3080.65."""
    objective = AutoBeta()
    batch = settled(objective, golden())
    assert objective.figures(batch)["beta"].tolist() == pytest.approx([3080.654135821962] * 2)
    assert objective.loss(batch).mean().item() == pytest.approx(0.8411726124166122, rel=1e-12)


def test_the_margin_is_averaged_from_step_to_step(golden: Make) -> None:
    """After 0.0009 by 0.0045: 0.99 * 0.0009 + 0.01 * 0.0045."""
    objective = AutoBeta()
    first = settled(objective, golden())
    policy = torch.tensor([[0.1, 0.1], [0.1045, 0.0955]]).double()
    second = of_errors(policy, torch.full((2, 2), 0.1).double())
    after = settled(objective, second, first.state)
    kept = 0.99 * 0.0009 + 0.01 * 0.0045
    assert {n: float(v) for n, v in after.state.items()} == pytest.approx(
        {"size": kept, "steps": 2.0}
    )
    assert objective.figures(after)["beta"][0].item() == pytest.approx(WANTED / kept)


def test_bounds(golden: Make) -> None:
    """Policy and reference agree at the first step: no margin, and the largest beta."""
    objective = AutoBeta()
    same = of_errors(torch.full((2, 1), 0.1).double(), torch.full((2, 1), 0.1).double())
    assert objective.figures(settled(objective, same))["beta"].tolist() == [16384.0]
    wide = of_errors(torch.tensor([[0.1], [9.1]]).double(), torch.full((2, 1), 0.1).double())
    assert objective.figures(settled(objective, wide))["beta"].tolist() == [16.384]


def test_gradient(golden: Make, slopes: Any) -> None:
    """That of DPO at the beta found, which has none: beta lambda / 2 sigmoid(-u).

    With the extra terms: L_w adds sft, and anchor / 2 (e - e_ref)^2 adds anchor / 2 (e - e_ref) / e
    by L = e^2.
    """
    beta = 1.5 * WANTED / 0.0009
    push = [beta / 2 / (1 + math.exp(beta / 2 * m)) for m in (0.001, -0.0008)]
    winner, loser = slopes(AutoBeta(), golden(1.5))
    assert winner == pytest.approx(push, rel=1e-9)
    assert loser == pytest.approx([-p for p in push], rel=1e-9)

    def anchor(own: float, other: float) -> float:
        return 0.3 / 2 * (1 - math.sqrt(other / own))

    winner, loser = slopes(AutoBeta(anchor=0.3, sft=0.2), golden(1.5))
    assert winner == pytest.approx(
        [push[0] + 0.2 + anchor(0.1, 0.1005), push[1] + 0.2 + anchor(0.14, 0.1397)], rel=1e-9
    )
    assert loser == pytest.approx(
        [anchor(0.102, 0.1015) - push[0], anchor(0.139, 0.1395) - push[1]], rel=1e-9
    )


def test_the_extra_terms(golden: Make) -> None:
    plain, more = AutoBeta(), AutoBeta(anchor=0.3, sft=0.2)
    a, b = (o.loss(settled(o, golden())).tolist() for o in (plain, more))
    drift = [sum((math.sqrt(x) - math.sqrt(y)) ** 2 for x, y in pair) for pair in (
        ((0.1, 0.1005), (0.102, 0.1015)), ((0.14, 0.1397), (0.139, 0.1395))
    )]  # fmt: skip
    added = [0.15 * d + 0.2 * w for d, w in zip(drift, (0.1, 0.14), strict=True)]
    assert [y - x for x, y in zip(a, b, strict=True)] == pytest.approx(added, rel=1e-9)
    assert (plain.predictions, more.predictions) == (False, True)


def test_a_state_is_that_of_the_step_before(golden: Make) -> None:
    """From a checkpoint: with 3 steps seen and no decay, the batch's own margin alone counts."""
    objective = AutoBeta(decay=0.0)
    state = as_state({"size": 7.0, "steps": 3.0})
    batch = settled(objective, golden(), state)
    assert float(batch.state["size"]) == pytest.approx(0.0009)
    assert replace(batch).state["steps"].item() == 4
