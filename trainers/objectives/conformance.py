"""What every objective must do, whatever its formula: for the author of one to check.

    from trainers.objectives.conformance import check
    check(Hinge())

Each check is a function of an objective, and raises an AssertionError that says what is wrong.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from trainers.objectives.base import Objective, PairErrors
from trainers.seeds import derive

PAIRS = 8


def example(seed: int = 0, soft: bool = False) -> tuple[PairErrors, Tensor]:
    """Errors of eight pairs as a model near its reference has them, and ``lambda`` in [1, 2].

    Args:
        seed: Of the draws.
        soft: Prefer some winners with a probability of one half, as ties have it.

    Returns:
        Errors in float64, those of the policy with gradients, and the scale ``[n]``.
    """
    generator = torch.Generator().manual_seed(derive(seed, "objective conformance"))

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    reference = 0.1 + 0.2 * draw(2, PAIRS)
    policy = (reference + 1e-3 * (draw(2, PAIRS) - 0.5)).requires_grad_()
    preference = torch.where(draw(PAIRS) < 0.5, 0.5, 1.0).double() if soft else 1.0
    errors = PairErrors(policy[0], policy[1], reference[0], reference[1], preference)
    return errors, 1 + draw(PAIRS)


def check(objective: Objective) -> None:
    """Run every check.

    Args:
        objective: With settings under which a loss near the reference has a gradient.

    Raises:
        AssertionError: At the first check that fails.
    """
    for one in CHECKS:
        one(objective)


def one_finite_loss_for_each_pair(objective: Objective) -> None:
    """A loss ``[n]`` of the errors' dtype, finite, also where the policy is its reference."""
    errors, scale = example()
    same = replace(
        errors, policy_winner=errors.reference_winner, policy_loser=errors.reference_loser
    )
    for given in (errors, same):
        loss = objective.loss(given, scale)
        got = f"{loss.dtype}{list(loss.shape)}"
        _expect(got == f"torch.float64[{PAIRS}]", f"torch.float64[{PAIRS}] from loss(), got {got}")
        _expect(bool(loss.isfinite().all()), f"finite losses, got {loss.tolist()}")


def the_gradient_is_the_policys(objective: Objective) -> None:
    """A finite gradient reaches the policy's errors."""
    errors, scale = example()
    policy = (errors.policy_winner, errors.policy_loser)
    loss = objective.loss(errors, scale)
    _expect(loss.requires_grad, "a loss with a gradient, got one without: keep the policy's graph")
    weighted = (loss * torch.arange(1, PAIRS + 1)).sum()
    found = torch.autograd.grad(weighted, policy, allow_unused=True)
    reached = [gradient for gradient in found if gradient is not None]
    _expect(bool(reached), "a gradient that reaches the policy's errors, got none")
    every = torch.stack(reached)
    _expect(bool(every.isfinite().all()), f"finite gradients, got {every.tolist()}")
    _expect(bool((every != 0).any()), "gradients other than 0 near the reference")


def company_and_order_change_nothing(objective: Objective) -> None:
    """A pair's loss depends on that pair alone: not on the batch, its order or how it is cut."""
    for soft in (False, objective.soft_labels):
        errors, scale = example(soft=soft)
        whole = objective.loss(errors, scale)
        order = torch.arange(PAIRS).flip(0)
        for rows in (order, *torch.arange(PAIRS).split(3)):
            part = objective.loss(_pick(errors, rows), scale[rows])
            _expect(
                torch.allclose(part, whole[rows], rtol=1e-12, atol=1e-12),
                f"the losses of pairs {rows.tolist()} to be what they are in the whole batch",
            )


def nothing_is_drawn_or_kept(objective: Objective) -> None:
    """Two calls give the same bits, and no global random state is touched."""
    before = torch.random.get_rng_state()
    first, second = (objective.loss(*example()) for _ in range(2))
    _expect(torch.equal(first, second), "the same bits twice")
    _expect(torch.equal(before, torch.random.get_rng_state()), "the global random state left alone")


def its_settings_say_what_it_is(objective: Objective) -> None:
    """Name, version and settings describe it, and make it again."""
    kind = type(objective)
    described = objective.resolved()
    _expect(described.get("name") == kind.name, f"the name {kind.name!r}, got {described}")
    version: Any = kind.version
    whole = isinstance(version, int) and not isinstance(version, bool) and version >= 1
    _expect(whole, f"a version from 1 on, got {version!r}")
    settings = {key: described[key] for key in kind.model_fields}
    _expect(kind(**settings) == objective, f"the same objective from its settings {settings}")


CHECKS: tuple[Callable[[Objective], None], ...] = (
    one_finite_loss_for_each_pair,
    the_gradient_is_the_policys,
    company_and_order_change_nothing,
    nothing_is_drawn_or_kept,
    its_settings_say_what_it_is,
)


def _pick(errors: PairErrors, rows: Tensor) -> PairErrors:
    values = {f.name: getattr(errors, f.name) for f in fields(errors)}
    return PairErrors(**{k: v[rows] if isinstance(v, Tensor) else v for k, v in values.items()})


def _expect(holds: bool, what: str) -> None:
    """Raise an AssertionError that says what was expected, also where Python skips asserts."""
    if not holds:
        raise AssertionError(f"expected {what}")
