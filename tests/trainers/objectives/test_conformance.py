"""What every objective must do, checked on every one there is; and that each fault is found."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from trainers.errors import UserError
from trainers.objectives import OBJECTIVES, Batch, Objective, State, Values
from trainers.objectives.conformance import check


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_passes_every_check(name: str) -> None:
    check(OBJECTIVES.get(name)())


class Good(Objective):
    """Without fault; those that follow have one each."""

    name: ClassVar[str] = "good"
    beta: float = 100.0

    def loss(self, batch: Batch) -> Tensor:
        return (1 - batch.logit(self.beta)).relu()


class Mean(Good):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch).mean()


class Infinite(Good):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) - batch.margin.abs().log()


class Cut(Good):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch).detach()


class Elsewhere(Good):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch).detach() + torch.zeros(8).double().requires_grad_()


class Flat(Good):
    def loss(self, batch: Batch) -> Tensor:
        return 0 * super().loss(batch)


class Relative(Good):
    def loss(self, batch: Batch) -> Tensor:
        losses = super().loss(batch)
        return losses - losses.mean()


class Drawing(Good):
    def loss(self, batch: Batch) -> Tensor:
        torch.rand(1)
        return super().loss(batch)


class Weighted(Good):
    """lambda on the loss."""

    def loss(self, batch: Batch) -> Tensor:
        return batch.scale * (1 - 0.5 * self.beta * batch.margin).relu()


class Local(Good):
    """A statistic that is a mean already: another for every cut."""

    def statistics(self, batch: Batch) -> Values:
        return {"margin": batch.margin.mean().expand_as(batch.margin)}


class Forgetful(Good):
    """Its state has other names after a step."""

    @property
    def group(self) -> None:
        return None

    def statistics(self, batch: Batch) -> Values:
        return {"size": batch.margin.abs()}

    def initial_state(self) -> dict[str, float]:
        return {"size": 0.0}

    def next_state(self, state: State, means: State) -> State:
        return {"margin": means["size"]}


class Grouped(Forgetful):
    """A state that would go on with every group of a batch."""

    @property
    def group(self) -> int:  # type: ignore[override]
        return 2


class Blind(Good):
    """Looks at what it does not declare."""

    def loss(self, batch: Batch) -> Tensor:
        return batch.winner.shift.square().flatten(1).mean(1)


class Unversioned(Good):
    version: ClassVar[int] = 0


class Prefixed(Good):
    """Both images of a pair would be shown under the winner's."""

    @property
    def prefixes(self) -> tuple[str, str]:
        return "good ", "bad "


FAULTS = {
    Mean: r"torch\.float64\[8\] from loss\(\), got torch\.float64\[\]",
    Infinite: "finite losses",
    Cut: "a loss with a gradient",
    Elsewhere: "a gradient that reaches the policy's predictions",
    Flat: "gradients other than 0",
    Relative: "what they are in the whole batch",
    Drawing: "the global random state left alone",
    Weighted: "lambda 2 to do what twice the beta does",
    Local: r"statistics\(\)\['margin'\] to be a number of each row",
    Forgetful: r"a state of \['size'\] after a step, got \['margin'\]",
    Prefixed: "no prefixes: both images of a pair",
    Unversioned: "a version from 1 on, got 0",
}


def test_a_state_goes_on_with_whole_batches() -> None:
    with pytest.raises(UserError, match="averages over groups of 2 rows: let its group be None"):
        check(Grouped())


def test_what_is_not_declared_is_not_there() -> None:
    """Rather than a number that means nothing."""
    with pytest.raises(TypeError, match="without 'predictions'"):
        check(Blind())


def test_a_faultless_objective_passes() -> None:
    check(Good())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_told(fault: type[Objective]) -> None:
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check(fault())
