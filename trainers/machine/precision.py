"""Precisions by name, as settings have them. Loads no torch before a dtype is asked for."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16", "float16"]
Matmul = Literal["float32", "tf32"]
"""How a GPU multiplies float32 values: as they are, or rounded to the 10 bits of TF32 first, which
is faster. torch's default is the first for matrices and the second for convolutions."""
BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a value, by precision."""


def torch_dtype(precision: str) -> "torch.dtype":
    """The dtype of torch that a precision, one of :data:`BYTES`, stands for."""
    import torch

    dtype: torch.dtype = getattr(torch, precision)
    return dtype
