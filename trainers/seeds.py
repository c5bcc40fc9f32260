"""The only place where a random seed is made.

A seed is the hash of a base seed and of the named axes it may depend on. An axis that is left
out cannot influence the draw: arms are never an axis, which is what makes two arms see the same
data order, timesteps and noise. Keys rather than streams are hashed, so no draw depends on the
batch size, on the number of processes, or on where an interrupted run was resumed.
"""

import hashlib
from typing import Annotated

import numpy as np
from pydantic import Field

LARGEST = 2**63 - 1
"""The largest base seed: what a column of a table, or a generator, can hold."""
MANY = 10_000
"""Training seeds of one experiment at most."""
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
"""A base seed, as settings have it."""
Axis = str | int


def derive(base: int, *axes: Axis) -> int:
    """Return the 63-bit seed of ``axes`` under ``base``.

    Args:
        base: The base seed, any integer.
        axes: Names and indices, in a fixed order, e.g. ``("noise", 12)``.

    Raises:
        TypeError: If an axis is neither a string nor an integer (a float would not be stable).
    """
    for axis in axes:
        if isinstance(axis, bool) or not isinstance(axis, str | int):
            raise TypeError(f"a seed axis must be str or int, got {axis!r}")
    text = "\x1f".join([str(int(base)), *(f"{type(a).__name__}:{a}" for a in axes)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(base: int, *axes: Axis) -> np.random.Generator:
    """A NumPy generator of its own for ``axes``."""
    return np.random.Generator(np.random.PCG64(derive(base, *axes)))
