"""Precisions by name: every one has its dtype, and the bytes that dtype has."""

from typing import get_args

import pytest
import torch

from trainers.machine.precision import BYTES, Precision, torch_dtype


def test_every_precision_has_its_bytes() -> None:
    assert tuple(BYTES) == get_args(Precision)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_bytes_are_those_of_the_dtype(precision: Precision) -> None:
    dtype = torch_dtype(precision)
    assert str(dtype) == f"torch.{precision}"
    assert torch.empty(1, dtype=dtype).element_size() == BYTES[precision]
