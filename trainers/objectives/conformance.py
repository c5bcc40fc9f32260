"""What every objective must do, whatever its formula: for the author of one to check.

    from trainers.objectives.conformance import check
    check(Hinge())

Each check is a function of an objective, and raises an AssertionError that says what is wrong.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from trainers.objectives.base import Batch, Objective, Side, Values
from trainers.objectives.means import as_state, settled
from trainers.seeds import derive

ROWS = 8
SHAPE = (ROWS, 2, 4, 4)
CUTS = (1, 2, 4)
"""Rows of a part, of those that a batch may be cut into."""


def example(objective: Objective, seed: int = 0, soft: bool = False) -> Batch:
    """Eight rows as a model near its reference predicts them, and ``lambda`` in [1, 2].

    Args:
        objective: What they are shown to: they hold what it declares, and no more.
        seed: Of the draws.
        soft: Prefer some images with a probability of one half, as ties have it.

    Returns:
        Rows in float64 without means; what the policy predicts are the leaves of the graph.
    """
    generator = torch.Generator().manual_seed(derive(seed, "objective conformance"))

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def side() -> Side:
        target, away = (2 * draw(*SHAPE) - 1 for _ in range(2))
        reference = target + 0.7 * away
        policy = (reference + 2e-3 * (draw(*SHAPE) - 0.5)).requires_grad_()
        return _side(objective, policy, target, reference)

    sides = tuple(side() for _ in range(objective.images))
    preference = torch.ones(ROWS).double()
    if objective.images == 1 and objective.winners < 1:
        preference = (torch.arange(ROWS) % 2).double()
    if soft:
        preference = preference.where(draw(ROWS) < 0.5, 0.5)
    timesteps = (1000 * draw(ROWS)).long()
    return Batch(
        sides=sides,
        preference=preference,
        scale=1 + draw(ROWS),
        timesteps=timesteps,
        snr=(1001 - timesteps) / (1 + timesteps.double()),
        columns={name: draw(ROWS) for name in objective.columns},
        mismatched=1e-3 * (draw(ROWS) - 0.5) if objective.mismatched else None,
    )


def of_errors(policy: Tensor, reference: Tensor, scale: float | Tensor = 1.0) -> Batch:
    """Rows with given errors, for values worked out by hand: latents of a single element.

    Args:
        policy: Errors ``L`` of the winners and of the losers, ``[2, n]``, or of single images,
            ``[1, n]``; gradients reach it through errors and through predictions alike.
        reference: Errors ``R``, likewise.
        scale: ``lambda(t)``.

    Returns:
        Rows whose targets are 0, and what is predicted the roots of the errors.
    """
    sides = tuple(
        Side(own.sqrt().view(-1, 1, 1, 1), torch.zeros_like(own).view(-1, 1, 1, 1), own, other,
             other.sqrt().view(-1, 1, 1, 1))
        for own, other in zip(policy, reference, strict=True)
    )  # fmt: skip
    ones = torch.ones_like(reference[0])
    return Batch(sides, ones, scale * ones, torch.zeros_like(ones).long(), ones)


def check(objective: Objective) -> None:
    """Run every check.

    Args:
        objective: With settings under which a loss near the reference has a gradient.

    Raises:
        AssertionError: At the first check that fails.
    """
    for one in CHECKS:
        one(objective)


def one_finite_loss_for_each_row(objective: Objective) -> None:
    """A loss ``[n]`` of the errors' dtype, finite, also where the policy is its reference."""
    batch = example(objective)
    for given in (batch, _at_the_reference(objective, batch)):
        loss = _loss(objective, given)
        got = f"{loss.dtype}{list(loss.shape)}"
        _expect(got == f"torch.float64[{ROWS}]", f"torch.float64[{ROWS}] from loss(), got {got}")
        _expect(bool(loss.isfinite().all()), f"finite losses, got {loss.tolist()}")


def the_gradient_is_the_policys(objective: Objective) -> None:
    """A finite gradient reaches what the policy predicts."""
    batch = example(objective)
    policy = [side.policy for side in batch.sides]
    loss = _loss(objective, batch)
    _expect(loss.requires_grad, "a loss with a gradient, got one without: keep the policy's graph")
    weighted = (loss * torch.arange(1, ROWS + 1)).sum()
    found = torch.autograd.grad(weighted, policy, allow_unused=True)
    reached = [gradient for gradient in found if gradient is not None]
    _expect(bool(reached), "a gradient that reaches the policy's predictions, got none")
    every = torch.stack(reached)
    _expect(bool(every.isfinite().all()), f"finite gradients, got {every.tolist()}")
    _expect(bool((every != 0).any()), "gradients other than 0 near the reference")


def company_and_order_change_nothing(objective: Objective) -> None:
    """A row's loss depends on that row, on the means and on the state alone."""
    for soft in (False, objective.soft_labels):
        batch = settled(objective, example(objective, soft=soft))
        whole = objective.loss(batch)
        order = torch.arange(ROWS).flip(0)
        for rows in (order, *torch.arange(ROWS).split(3)):
            part = objective.loss(_pick(batch, rows))
            _expect(
                torch.allclose(part, whole[rows], rtol=1e-12, atol=1e-12),
                f"the losses of rows {rows.tolist()} to be what they are in the whole batch: "
                "what is averaged over rows belongs into statistics()",
            )


def statistics_are_those_of_rows(objective: Objective) -> None:
    """What is averaged, and what is shown, is a number of each row, however a batch is cut."""
    batch = example(objective)

    def figures(part: Batch) -> Values:
        return objective.figures(_with_means_of(objective, batch, part))

    seen: dict[str, Callable[[Batch], Values]] = {
        "statistics": objective.statistics, "figures": figures
    }  # fmt: skip
    for name, of in seen.items():
        whole = of(batch)
        for rows in CUTS:
            parts = [of(_pick(batch, part)) for part in torch.arange(ROWS).split(rows)]
            for key, column in whole.items():
                got = torch.cat([part[key] for part in parts])
                _expect(
                    got.shape == column.shape == (ROWS,)
                    and torch.allclose(got, column, rtol=1e-12, atol=1e-12),
                    f"{name}()[{key!r}] to be a number of each row, the same for 1 x {ROWS} rows "
                    f"and {ROWS // rows} x {rows}",
                )


def a_state_goes_through_a_checkpoint(objective: Objective) -> None:
    """It is finite numbers by name, kept by every step, and as JSON goes on to the bit."""
    kept: Mapping[str, Tensor] = as_state(objective.initial_state())
    if not kept:
        return
    through = kept
    for seed in range(3):
        batch = example(objective, seed)
        kept = settled(objective, batch, kept).state
        values = {name: float(value) for name, value in through.items()}
        through = settled(objective, batch, as_state(json.loads(json.dumps(values)))).state
        names = [*objective.initial_state()]
        _expect([*kept] == names, f"a state of {names} after a step, got {[*kept]}")
        for name, value in kept.items():
            _expect(bool(value.isfinite()) and value.dim() == 0, f"state {name!r} to be a number")
            _expect(torch.equal(value, through[name]), f"state {name!r} to be as before")


def lambda_scales_beta(objective: Objective) -> None:
    """Where there is a beta, lambda is a factor of it, and weighs no loss."""
    beta = getattr(objective, "beta", None)
    if beta is None:
        return
    batch = replace(example(objective), scale=torch.full((ROWS,), 2.0).double())
    plain = replace(batch, scale=torch.ones(ROWS).double())
    doubled = objective.model_copy(update={"beta": 2 * beta})
    _expect(
        torch.allclose(_loss(objective, batch), _loss(doubled, plain), rtol=1e-9, atol=1e-12),
        "lambda 2 to do what twice the beta does",
    )


def a_safeguard_changes_no_value(objective: Objective) -> None:
    """Where gradients of the loser are slowed, the losses are what they were."""
    if objective.images == 1:
        return
    batch = example(objective)
    factor = torch.linspace(0, 1, ROWS).double()
    guarded = replace(batch, sides=(batch.winner, batch.loser.slowed(factor)))
    before, after = _loss(objective, batch), _loss(objective, guarded)
    _expect(torch.equal(before, after), "the losses under a safeguard to be those without")


def nothing_is_drawn_or_kept(objective: Objective) -> None:
    """Two calls give the same bits, and no global random state is touched."""
    before = torch.random.get_rng_state()
    first, second = (_loss(objective, example(objective)) for _ in range(2))
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
    settings = {key: value for key, value in described.items() if key in kind.model_fields}
    paired = kind.images == 2 and objective.prefixes is not None
    _expect(not paired, "no prefixes: both images of a pair are shown under one caption")
    _expect(kind(**settings) == objective, f"the same objective from its settings {settings}")


CHECKS: tuple[Callable[[Objective], None], ...] = (
    one_finite_loss_for_each_row,
    the_gradient_is_the_policys,
    company_and_order_change_nothing,
    statistics_are_those_of_rows,
    a_state_goes_through_a_checkpoint,
    lambda_scales_beta,
    a_safeguard_changes_no_value,
    nothing_is_drawn_or_kept,
    its_settings_say_what_it_is,
)


def _side(objective: Objective, policy: Tensor, target: Tensor, reference: Tensor) -> Side:
    """What an objective is shown of an image."""
    error, reference_error = (
        (guess - target).square().flatten(1).mean(1) for guess in (policy, reference)
    )
    return Side(
        policy, target, error,
        reference_error if objective.referenced else None,
        reference if objective.predictions else None,
    )  # fmt: skip


def _at_the_reference(objective: Objective, batch: Batch) -> Batch:
    """The same rows where the policy is its reference."""
    sides = []
    for side in batch.sides:
        held = side.policy.detach()
        sides.append(_side(objective, held.clone().requires_grad_(), side.target, held))
    return replace(batch, sides=tuple(sides))


def _loss(objective: Objective, batch: Batch) -> Tensor:
    return objective.loss(settled(objective, batch))


def _with_means_of(objective: Objective, whole: Batch, part: Batch) -> Batch:
    """A part of a batch with the means of all of it: here each group is the whole."""
    every = settled(objective, whole)
    rows = len(part.preference)
    means = {name: column[:1].expand(rows) for name, column in every.means.items()}
    return replace(part, means=means, state=every.state)


def _pick(batch: Batch, rows: Tensor) -> Batch:
    """Some rows of a batch, with their means."""

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows]
        if isinstance(value, Mapping):
            return {name: column[rows] for name, column in value.items()}
        if isinstance(value, Side):
            return Side(**{f.name: pick(getattr(value, f.name)) for f in fields(value)})
        return tuple(map(pick, value)) if isinstance(value, tuple) else value

    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{k: v if k == "state" else pick(v) for k, v in found.items()})


def _expect(holds: bool, what: str) -> None:
    """Raise an AssertionError that says what was expected, also where Python skips asserts."""
    if not holds:
        raise AssertionError(f"expected {what}")
