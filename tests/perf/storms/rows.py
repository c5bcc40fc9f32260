"""What a row of the table is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from experiment import Setting


@dataclass(frozen=True)
class Try:
    """One attack."""

    name: str
    run: Callable[[Path], None]
    """Attack in an empty folder; raises :class:`commands.Wrong` if that does not end rightly."""


@dataclass(frozen=True)
class Row:
    """All attacks on one subject."""

    name: str
    area: str
    """What the table says."""
    tries: Callable[[Setting, np.random.Generator, int], list[Try]]
    """About so many attacks."""
    count: int
    """How many by default."""


def sample(tries: list[Try], rng: np.random.Generator, count: int) -> list[Try]:
    """So many of them, drawn without repetition, in their order."""
    if count >= len(tries):
        return tries
    return [tries[n] for n in sorted(rng.choice(len(tries), count, replace=False))]
