"""DPO and SFT against values and identities worked out by hand."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.objectives import Batch
from trainers.objectives.conformance import of_errors
from trainers.objectives.dpo import DPO
from trainers.objectives.sft import SFT

error = st.floats(0, 2, allow_subnormal=False)


def errors(
    policy_winner: float, policy_loser: float, reference_winner: float, reference_loser: float,
    scale: float = 1.0,
) -> Batch:  # fmt: skip
    """The errors of one pair, and its lambda."""
    policy = torch.tensor([[policy_winner], [policy_loser]], dtype=torch.float64)
    reference = torch.tensor([[reference_winner], [reference_loser]], dtype=torch.float64)
    return of_errors(policy.requires_grad_(), reference, scale)


def two_pairs(scale: float | Tensor = 1.0) -> Batch:
    """Two pairs with (L_w - L_l) - (R_w - R_l) of -0.001 and +0.0008."""
    policy = torch.tensor([[0.100, 0.140], [0.102, 0.139]], dtype=torch.float64)
    reference = torch.tensor([[0.1005, 0.1397], [0.1015, 0.1395]], dtype=torch.float64)
    return of_errors(policy.requires_grad_(), reference, scale)


def gradients(loss: Tensor, batch: Batch) -> list[list[float]]:
    """d loss / d L of winners and of losers; 0 where nothing flows."""
    own = [side.error for side in batch.sides]
    found = torch.autograd.grad(loss.sum(), own, materialize_grads=True)
    return [gradient.tolist() for gradient in found]


@pytest.mark.parametrize(
    ("beta", "logits", "golden"),
    [(2000.0, (1.0, -0.8), 0.74218117673301), (5000.0, (2.5, -2.0), 1.1029088726677876)],
)
def test_dpo_golden(beta: float, logits: tuple[float, float], golden: float) -> None:
    """Diffusion-DPO as its authors' code has it (arXiv 2311.12908).

    u = -beta/2 * (-0.001, +0.0008), so (1, -0.8) at beta 2000; each loss is ln(1 + exp(-u)).
    """
    loss = DPO(beta=beta).loss(two_pairs())
    by_hand = [math.log1p(math.exp(-u)) for u in logits]
    assert loss.tolist() == pytest.approx(by_hand, rel=1e-10)
    assert loss.mean().item() == pytest.approx(golden, rel=1e-12)


def test_dpo_of_a_tie_is_the_mean_over_both_labels() -> None:
    """(ln(1 + exp(-u)) + ln(1 + exp(u))) / 2 for u = 1 and -0.8; with p = 1 the plain loss."""
    preference = torch.tensor([0.5, 1.0], dtype=torch.float64)
    tie = dataclasses.replace(two_pairs(), preference=preference)
    first, second = DPO(beta=2000.0).loss(tie).tolist()
    assert first == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2)
    assert second == pytest.approx(math.log1p(math.exp(0.8)))
    assert (DPO.soft_labels, SFT.soft_labels) == (True, False)


def test_margin_is_in_favour_of_the_winner() -> None:
    """Minus the differences above: the first pair is ranked correctly, the second is not."""
    assert two_pairs().margin.tolist() == pytest.approx([0.001, -0.0008])


@given(error, error, st.floats(1, 10_000))
def test_dpo_of_a_policy_equal_to_its_reference_is_ln_2(w: float, l: float, beta: float) -> None:  # noqa: E741
    """u = 0 whatever the errors, and -ln sigmoid(0) = ln 2."""
    loss = DPO(beta=beta).loss(errors(w, l, w, l)).item()
    assert loss == pytest.approx(0.6931471805599453, rel=1e-14)


@given(error, error, error, error)
def test_swapping_winner_and_loser_flips_the_margin(a: float, b: float, c: float, d: float) -> None:
    """Margin(w, l) = -margin(l, w); -ln sigmoid(u) + ln sigmoid(-u) = -u: the losses differ by u.

    u = beta/2 * margin with beta = 20.
    """
    forth, back = errors(a, b, c, d), errors(b, a, d, c)
    assert back.margin.item() == pytest.approx(-forth.margin.item(), abs=1e-15)
    objective = DPO(beta=20.0)
    difference = objective.loss(forth) - objective.loss(back)
    assert difference.item() == pytest.approx(-10 * forth.margin.item(), abs=1e-12)


@given(error, error, error, error, st.floats(0, 1), st.floats(0, 1))
def test_dpo_ignores_what_policy_and_reference_share(
    a: float, b: float, c: float, d: float, winner: float, loser: float
) -> None:
    """A constant on L and R of one image cancels in R - L; SFT, which has no R, does move."""
    plain, moved = errors(a, b, c, d), errors(a + winner, b + loser, c + winner, d + loser)
    objective = DPO(beta=100.0)
    got = objective.loss(moved).item()
    assert got == pytest.approx(objective.loss(plain).item(), rel=1e-9, abs=1e-12)
    shift = SFT().loss(moved) - SFT().loss(plain)
    assert shift.item() == pytest.approx(winner, abs=1e-12)


@settings(max_examples=50)
@given(error, error, error, error, st.floats(1, 100), st.floats(1, 2))
def test_dpo_gradient(a: float, b: float, c: float, d: float, beta: float, scale: float) -> None:
    """d/dL_w of -ln sigmoid(u), u = -s/2 * L_w + ..., is s/2 * sigmoid(-u) > 0; L_l: the opposite.

    s = beta * lambda: lambda stands inside the sigmoid (arXiv 2505.18736, Eq. 5-6).
    """
    pair = errors(a, b, c, d, scale)
    [[winner], [loser]] = gradients(DPO(beta=beta).loss(pair), pair)
    u = 0.5 * beta * scale * ((c - a) - (d - b))
    expected = 0.5 * beta * scale / (1 + math.exp(u))
    assert winner == pytest.approx(expected, rel=1e-9)
    assert loser == pytest.approx(-expected, rel=1e-9)
    assert winner > 0


@given(error, error, error, error, st.floats(1, 2))
def test_lambda_scales_beta(a: float, b: float, c: float, d: float, scale: float) -> None:
    """Beta 100 with lambda is beta 100 * lambda; a weight on the loss would give lambda * loss."""
    inside = DPO(beta=100.0).loss(errors(a, b, c, d, scale)).item()
    scaled = DPO(beta=100.0 * scale).loss(errors(a, b, c, d)).item()
    assert inside == pytest.approx(scaled, rel=1e-9, abs=1e-14)


def test_lambda_is_per_pair() -> None:
    """At beta 1000 the logits are 0.5 and -0.4; lambda (2, 1.5) makes them 1.0 and -0.6."""
    scale = torch.tensor([2.0, 1.5], dtype=torch.float64)
    loss = DPO(beta=1000.0).loss(two_pairs(scale))
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-u)) for u in (1.0, -0.6)], rel=1e-9)


def test_dpo_of_hopeless_pairs_is_finite() -> None:
    """At u = -5000 the loss is 5000 (to rounding) with slope beta/2, not an overflow."""
    pair = errors(2.0, 0.0, 0.0, 0.0)
    loss = DPO(beta=5000.0).loss(pair)
    assert loss.item() == pytest.approx(5000.0)
    assert gradients(loss, pair)[0] == pytest.approx([2500.0])


def softplus(x: float) -> float:
    """-ln sigmoid(-x)."""
    return math.log1p(math.exp(x))


def test_labels_that_may_be_wrong() -> None:
    """cDPO: (1 - e) l(u) + e l(-u); rDPO: ((1 - e) l(u) - e l(-u)) / (1 - 2 e), at u = 1, -0.8."""
    e, logits = 0.1, (1.0, -0.8)
    conservative = DPO(beta=2000.0, label_smoothing=e).loss(two_pairs())
    assert conservative.tolist() == pytest.approx(
        [(1 - e) * softplus(-u) + e * softplus(u) for u in logits], rel=1e-9
    )
    robust = DPO(beta=2000.0, label_smoothing=e, robust=True).loss(two_pairs())
    assert robust.tolist() == pytest.approx(
        [((1 - e) * softplus(-u) - e * softplus(u)) / (1 - 2 * e) for u in logits], rel=1e-9
    )


@given(error, error, error, error, st.floats(0.01, 0.49))
def test_robust_dpo_is_right_in_the_mean(a: float, b: float, c: float, d: float, e: float) -> None:
    """Of labels that are flipped with probability e, its expectation is DPO on the true ones."""
    true, flipped = errors(a, b, c, d), errors(b, a, d, c)
    robust = DPO(beta=20.0, label_smoothing=e, robust=True)
    mean = (1 - e) * robust.loss(true) + e * robust.loss(flipped)
    assert mean.item() == pytest.approx(DPO(beta=20.0).loss(true).item(), rel=1e-7, abs=1e-9)


def test_smoothing_has_a_gradient_of_its_own() -> None:
    """d/du of (1 - e) l(u) + e l(-u) is e - sigmoid(-u): 0 at u = ln((1 - e) / e)."""
    u = math.log(9)
    pair = errors(0.5, 0.5 + 2 * u, 0.5, 0.5)
    loss = DPO(beta=1.0, label_smoothing=0.1).loss(pair)
    assert gradients(loss, pair)[0] == pytest.approx([0.0], abs=1e-12)
    assert gradients(DPO(beta=1.0).loss(pair), pair)[0] == pytest.approx([0.05])


def test_settings_that_are_off_are_in_no_identity() -> None:
    assert DPO().resolved() == {"name": "dpo", "beta": 5000.0}
    assert DPO(label_smoothing=0.1).resolved() == {
        "name": "dpo", "beta": 5000.0, "label_smoothing": 0.1
    }  # fmt: skip
    with pytest.raises(ValueError, match="robust needs a label_smoothing above 0"):
        DPO(robust=True)


def test_sft_is_the_winners_error() -> None:
    """L_w per pair; nothing flows into a loser, and the slope for the winner is 1."""
    pair = two_pairs(1.7)
    loss = SFT().loss(pair)
    assert loss.tolist() == [0.100, 0.140]
    assert gradients(loss, pair) == [[1.0, 1.0], [0.0, 0.0]]
    assert (SFT.images, SFT.referenced, SFT().winners) == (1, False, 1.0)


def test_what_other_sources_call_beta() -> None:
    assert DPO(beta=7.0).strength == 7.0
    assert SFT().strength is None
