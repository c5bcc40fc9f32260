"""MaPO by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainers.objectives import Batch
from trainers.objectives.conformance import of_errors
from trainers.objectives.mapo import MaPO

Make = Callable[..., Batch]


def link(x: float) -> float:
    """s x / (e^(s x) - 1), s = 0.5."""
    return 0.5 * x / math.expm1(0.5 * x) if x > 1e-300 else 1.0


def test_golden(golden: Make) -> None:
    """s 0.5, T 1000, weight 0.1; margins 4.91584048824989e-4 and -2.4418844245421845e-4."""
    loss = MaPO().loss(golden())
    assert loss.mean().item() == pytest.approx(0.18499695662209997, rel=1e-12)
    margins = [4.91584048824989e-4, -2.4418844245421845e-4]
    by_hand = [w + 0.1 * math.log1p(math.exp(-1000 * m))
               for w, m in zip((0.1, 0.14), margins, strict=True)]  # fmt: skip
    assert loss.tolist() == pytest.approx(by_hand, rel=1e-10)


def test_gradient(golden: Make, slopes: Any) -> None:
    """Of L_w: 1 - 0.1 T lambda sigmoid(-T lambda m) phi'(L_w); of L_l the opposite without the 1.

    phi'(x) = phi(x) (1/x - s e^(s x) / (e^(s x) - 1)).
    """
    winner, loser = slopes(MaPO(), golden(1.5))
    for n, (w, l) in enumerate([(0.100, 0.102), (0.140, 0.139)]):  # noqa: E741
        push = 150 / (1 + math.exp(1500 * (link(w) - link(l))))

        def slope(x: float) -> float:
            return link(x) * (1 / x - 0.5 * math.exp(0.5 * x) / math.expm1(0.5 * x))

        assert winner[n] == pytest.approx(1 - push * slope(w), rel=1e-9)
        assert loser[n] == pytest.approx(push * slope(l), rel=1e-9)


@given(st.floats(0, 4, allow_subnormal=False), st.floats(0, 4, allow_subnormal=False))
def test_swapping_winner_and_loser_flips_the_margin(a: float, b: float) -> None:
    """Losses less L_w are -w log sigmoid(x) and -w log sigmoid(-x): they differ by w x."""
    forth, back = (
        of_errors(torch.tensor([[x], [y]], dtype=torch.float64), torch.ones(2, 1).double())
        for x, y in ((a, b), (b, a))
    )
    difference = (MaPO().loss(forth) - a) - (MaPO().loss(back) - b)
    assert difference.item() == pytest.approx(-100 * (link(a) - link(b)), rel=1e-6, abs=1e-9)


def test_no_error_at_all(slopes: Any) -> None:
    """0 / 0 in the formula: phi(0) = 1, phi'(0) = -1/4; and the series meets the quotient."""
    batch = of_errors(torch.zeros(2, 1).double().requires_grad_(), torch.ones(2, 1).double())
    assert MaPO().loss(batch).item() == pytest.approx(0.1 * math.log(2))
    winner, loser = slopes(MaPO(), batch)
    assert winner == pytest.approx([1 + 50 / 4])
    assert loser == pytest.approx([-50 / 4])
    below, above = (
        MaPO(slope=1.0)._link(torch.tensor([1e-4 * (1 + sign * 1e-9)], dtype=torch.float64)).item()
        for sign in (-1, 1)
    )
    assert below == pytest.approx(above, rel=1e-12)


def test_no_reference_is_looked_at(golden: Make) -> None:
    batch = golden()
    bare = [replace(side, reference=None, reference_error=None) for side in batch.sides]
    assert torch.equal(MaPO().loss(replace(batch, sides=tuple(bare))), MaPO().loss(batch))
    assert not MaPO.referenced
