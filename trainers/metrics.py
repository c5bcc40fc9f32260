"""The log of a run: one JSON line per step. A checkpoint knows the sha256 of those before it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trainers.files import clear, write_atomically, writing
from trainers.input.paths import is_regular
from trainers.references import Event

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepMetrics:
    """What a step measured. Errors are per-element means, averaged over the batch."""

    step: int
    loss: float
    policy_winner: float
    policy_loser: float
    reference_winner: float
    reference_loser: float
    margin: float
    """Mean of ``(R_w - L_w) - (R_l - L_l)``."""
    accuracy: float
    """Share of pairs with a positive margin; a margin of exactly zero counts one half."""
    divergence: float | None
    """Divergence of the reference from the pretrained model, where the step measured it."""
    reference_action: str
    grad_norm: float | None
    """Norm before clipping; None where float16 overflowed and the step was left out."""
    lr: float
    timestep_deciles: list[int]
    """Number of pairs per tenth of the timesteps, the cleanest first."""


class StepStatistics:
    """Statistics of each pair of a step's batch, ``[6, n]`` on the CPU, for its line in the log."""

    def __init__(self, columns: Tensor) -> None:
        """Rows: loss; errors of policy, then of reference, on winner and loser; timestep."""
        self.columns = columns

    @property
    def finite(self) -> bool:
        """Whether every loss is."""
        return bool(self.columns[0].isfinite().all())

    def metrics(
        self, step: int, norm: float | None, lr: float, event: Event, timesteps: int
    ) -> StepMetrics:
        """The line of the log; ``timesteps`` is how many there are."""
        winner, loser, ref_winner, ref_loser = self.columns[1:5]
        margins = (ref_winner - winner) - (ref_loser - loser)
        correct = (margins > 0).float() + 0.5 * (margins == 0).float()
        return StepMetrics(
            step=step,
            loss=float(self.columns[0].mean()),
            policy_winner=float(winner.mean()),
            policy_loser=float(loser.mean()),
            reference_winner=float(ref_winner.mean()),
            reference_loser=float(ref_loser.mean()),
            margin=float(margins.mean()),
            accuracy=float(correct.mean()),
            divergence=event.divergence,
            reference_action=event.action,
            grad_norm=norm,
            lr=lr,
            timestep_deciles=decile_counts(self.columns[5].long(), timesteps),
        )


def decile_counts(timesteps: Tensor, count: int) -> list[int]:
    """Number of ``timesteps`` in each tenth of ``0 .. count - 1``."""
    counts: list[int] = (timesteps * 10 // count).bincount(minlength=10).tolist()
    return counts


class MetricsLog:
    """Appends steps to a file, of which the first ``keep`` are kept from an interrupted run."""

    def __init__(self, path: Path, keep: int) -> None:
        """Open ``path`` and drop every line after step ``keep``."""
        head = b"".join(_lines(path)[:keep])
        write_atomically(path, lambda part: part.write_bytes(head))
        self._path = path
        self._hash = hashlib.sha256(head)
        self._stream: IO[bytes] = path.open("ab")

    @property
    def sha256(self) -> str:
        """Hex sha256 of all lines."""
        return self._hash.hexdigest()

    def write(self, metrics: StepMetrics) -> None:
        """Add a step."""
        line = json.dumps(asdict(metrics)).encode() + b"\n"
        self._hash.update(line)
        with writing(self._path):
            self._stream.write(line)

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        with writing(self._path):
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file, with everything written so far in it."""
        with writing(self._path):
            self._stream.close()


def log_sha256(path: Path, steps: int) -> str:
    """Hex sha256 of the lines of the first ``steps`` of a log, or of fewer that are there."""
    return hashlib.sha256(b"".join(_lines(path)[:steps])).hexdigest()


def _lines(path: Path) -> list[bytes]:
    if not is_regular(path):
        clear(path)
        return []
    return path.read_bytes().splitlines(keepends=True)


class NoLog:
    """The log of a process that is not the one to write it."""

    sha256 = ""

    def write(self, metrics: StepMetrics) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
