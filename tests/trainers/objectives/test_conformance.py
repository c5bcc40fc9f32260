"""What every objective must do, checked on every one there is; and that each fault is found."""

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from trainers.objectives import OBJECTIVES, Objective, PairErrors
from trainers.objectives.conformance import check


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_passes_every_check(name: str) -> None:
    check(OBJECTIVES.get(name)())


class Good(Objective):
    """Without fault; those that follow have one each."""

    name: ClassVar[str] = "good"
    beta: float = 100.0

    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        return (1 - self.beta * scale * errors.margin).relu()


class Mean(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        return super().loss(errors, scale).mean()


class Infinite(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        return super().loss(errors, scale) - errors.margin.abs().log()


class Cut(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        return super().loss(errors, scale).detach()


class Elsewhere(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        return super().loss(errors, scale).detach() + torch.zeros(8).double().requires_grad_()


class Flat(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        return 0 * super().loss(errors, scale)


class Relative(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        losses = super().loss(errors, scale)
        return losses - losses.mean()


class Drawing(Good):
    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        torch.rand(1)
        return super().loss(errors, scale)


class Unversioned(Good):
    version: ClassVar[int] = 0


FAULTS = {
    Mean: r"torch\.float64\[8\] from loss\(\), got torch\.float64\[\]",
    Infinite: "finite losses",
    Cut: "a loss with a gradient",
    Elsewhere: "a gradient that reaches the policy's errors",
    Flat: "gradients other than 0",
    Relative: "what they are in the whole batch",
    Drawing: "the global random state left alone",
    Unversioned: "a version from 1 on, got 0",
}


def test_a_faultless_objective_passes() -> None:
    check(Good())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_told(fault: type[Objective]) -> None:
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check(fault())
