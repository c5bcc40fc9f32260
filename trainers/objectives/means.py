"""Means over groups of rows, which objectives and safeguards look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from trainers.errors import UserError
from trainers.objectives.base import Averaging, Batch, Objective, State, Values

if TYPE_CHECKING:
    from torch import Tensor


def group_size(plugin: Averaging, batch_size: int) -> int:
    """Rows of a batch that share means.

    Raises:
        UserError: If they do not divide the batch, or are not all of it where a state follows them.
    """
    if isinstance(plugin, Objective) and plugin.initial_state() and plugin.group is not None:
        raise UserError(
            f"objective {plugin.name!r} carries a state from batch to batch, and averages over "
            f"groups of {plugin.group} rows: let its group be None"
        )
    group = batch_size if plugin.group is None else plugin.group
    if batch_size % group:
        raise UserError(
            f"{plugin.name!r} averages over groups of {group} rows, which do not divide a "
            f"batch_size of {batch_size}: choose another group or batch_size"
        )
    return group


def cuts_groups(plugins: Iterable[Averaging], batch_size: int, rows: int) -> bool:
    """Whether a part of ``rows`` of a batch lacks some that share means with its own."""
    return any(rows % group_size(plugin, batch_size) for plugin in plugins)


def group_means(values: Mapping[str, Tensor], group: int) -> Values:
    """Of each row the mean over its group: ``[n]`` from ``[n]``, ``group`` neighbours each."""
    return {
        name: column.view(-1, group).mean(1).repeat_interleave(group)
        for name, column in values.items()
    }


def as_state(values: Mapping[str, float], device: str = "cpu") -> State:
    """An objective's state as a checkpoint holds it, on a device, and as exact as there."""
    import torch

    return {
        name: torch.tensor(value, dtype=torch.float64, device=device)
        for name, value in values.items()
    }


def settled(plugin: Averaging, batch: Batch, state: State | None = None) -> Batch:
    """A batch, whole, with the means and the state that a plug-in finds in a step.

    Args:
        plugin: An objective or a safeguard.
        batch: All rows.
        state: That of the objective before the step; None for the first step.
    """
    import torch

    with torch.no_grad():
        means = group_means(plugin.statistics(batch), group_size(plugin, len(batch.preference)))
    if isinstance(plugin, Objective):
        state = as_state(plugin.initial_state()) if state is None else state
        batch = replace(batch, state=stepped(plugin, state, means))
    return replace(batch, means=means, mismatched=None)


def stepped(objective: Objective, state: State, means: Mapping[str, Tensor]) -> State:
    """The state of an objective in a step whose batch has these ``means``, ``[n]`` by name."""
    if not state:
        return state
    return objective.next_state(state, {name: column.mean() for name, column in means.items()})
