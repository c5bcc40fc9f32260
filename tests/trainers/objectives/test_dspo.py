"""DSPO by hand, on latents of one element: e = sqrt(L), e_ref = sqrt(R), target 0."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from trainers.objectives import Batch
from trainers.objectives.dspo import DSPO
from trainers.objectives.means import settled

Make = Callable[..., Batch]
L_W, R_W, MARGINS = (0.100, 0.140), (0.1005, 0.1397), (0.001, -0.0008)


def doubt(beta: float, margin: float) -> float:
    """1 - sigmoid(beta / 2 margin)."""
    return 1 / (1 + math.exp(0.5 * beta * margin))


def sd15(l_w: float, l_l: float, beta: float, n: int) -> float:
    """|(e - target) - beta (1 - sigmoid(u)) (e - e_ref)|^2 of a pair, as a function of L."""
    r_l = (0.1015, 0.1395)[n]
    margin = (R_W[n] - l_w) - (r_l - l_l)
    e, ref = math.sqrt(l_w), math.sqrt(R_W[n])
    return (e - beta * doubt(beta, margin) * (e - ref)) ** 2


@pytest.mark.parametrize("beta", [0.001, 300.0])
def test_the_form_of_sd15(beta: float, golden: Make, slopes: Any) -> None:
    """Values, and slopes by central differences: also through sigmoid(u), whose loser is one."""
    objective, losers, h = DSPO(beta=beta), (0.102, 0.139), 1e-6
    loss = objective.loss(settled(objective, golden()))
    assert loss.tolist() == pytest.approx([sd15(L_W[n], losers[n], beta, n) for n in (0, 1)])
    winner, loser = slopes(objective, golden())
    for n in (0, 1):
        w, l = L_W[n], losers[n]  # noqa: E741
        by_w = (sd15(w + h, l, beta, n) - sd15(w - h, l, beta, n)) / (2 * h)
        by_l = (sd15(w, l + h, beta, n) - sd15(w, l - h, beta, n)) / (2 * h)
        assert winner[n] == pytest.approx(by_w, rel=1e-6)
        assert loser[n] == pytest.approx(by_l, rel=1e-5, abs=1e-9)


def test_at_the_codes_beta_it_is_nearly_sft(golden: Make) -> None:
    """The correction is about 0.0005 (e - e_ref)."""
    objective = DSPO()
    loss = objective.loss(settled(objective, golden())).tolist()
    assert loss == pytest.approx(L_W, rel=1e-5)
    assert loss != pytest.approx(L_W, rel=1e-9)


def test_lambda_scales_beta_at_both_places(golden: Make) -> None:
    one, other = DSPO(beta=300.0), DSPO(beta=450.0)
    found = one.loss(settled(one, golden(1.5))).tolist()
    assert found == pytest.approx(other.loss(settled(other, golden())).tolist(), rel=1e-12)


def test_the_form_of_sdxl(golden: Make, slopes: Any) -> None:
    """(1 - sigmoid(u))^2 near the reference, whose slope in L_w is beta (1 - s)^2 s; else times

    the squared distance, which is below 1e-5 here.
    """
    near = DSPO(form="sdxl")
    assert near.beta == 5000.0
    assert near.loss(settled(near, golden())).tolist() == pytest.approx(
        [doubt(5000.0, m) ** 2 for m in MARGINS], rel=1e-9
    )
    winner, loser = slopes(near, golden())
    by_hand = [5000 * doubt(5000.0, m) ** 2 * (1 - doubt(5000.0, m)) for m in MARGINS]
    assert winner == pytest.approx(by_hand, rel=1e-9)
    assert loser == pytest.approx([-g for g in by_hand], rel=1e-9)
    far = DSPO(form="sdxl", near=0.0)
    distances = [(math.sqrt(w) - math.sqrt(r)) ** 2 for w, r in zip(L_W, R_W, strict=True)]
    assert far.loss(settled(far, golden())).tolist() == pytest.approx(
        [doubt(5000.0, m) ** 2 * d for m, d in zip(MARGINS, distances, strict=True)], rel=1e-9
    )


def test_the_branch_is_that_of_the_group(golden: Make) -> None:
    """Distances 6.2e-7 and 1.6e-7: with a bound between their mean and the first, rows differ."""
    bound = 5e-7
    alone, together = (DSPO(form="sdxl", near=bound, neighbours=n) for n in (1, 2))
    apart = alone.loss(settled(alone, golden())).tolist()
    assert apart[0] < 1e-6 < apart[1]
    assert min(together.loss(settled(together, golden())).tolist()) > 1e-3


def test_defaults_follow_the_form() -> None:
    assert (DSPO().beta, DSPO(form="sdxl", beta=7.0).beta) == (0.001, 7.0)
    assert DSPO(form="sdxl").resolved()["beta"] == 5000.0
