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
from trainers.objectives.base import Batch, Values
from trainers.references import Event

if TYPE_CHECKING:
    from torch import Tensor


ERRORS = ("policy_winner", "policy_loser", "reference_winner", "reference_loser")


@dataclass(frozen=True)
class StepMetrics:
    """What a step measured. Errors are per-element means, averaged over the batch.

    None stands for what was not computed: anything of a reference or a loser that is not run, and
    margins where an image stands alone. Single images count as winners where they are desirable,
    and as losers where not.
    """

    step: int
    loss: float
    policy_winner: float | None
    policy_loser: float | None
    reference_winner: float | None
    reference_loser: float | None
    margin: float | None
    """Mean of ``(R_w - L_w) - (R_l - L_l)``."""
    accuracy: float | None
    """Share of pairs with a positive margin; a margin of exactly zero counts one half."""
    divergence: float | None
    """Divergence of the reference from the pretrained model, where the step measured it."""
    reference_action: str
    grad_norm: float | None
    """Norm before clipping; None where float16 overflowed and the step was left out."""
    lr: float
    timestep_deciles: list[int]
    """Number of rows per tenth of the timesteps, the cleanest first."""
    decile_winners: list[int] | None
    """Likewise, of the images whose errors are summed up below; then of those of losers."""
    decile_losers: list[int] | None
    decile_policy_winner: list[float] | None
    """Sum of the errors in each tenth; likewise the next three."""
    decile_policy_loser: list[float] | None
    decile_reference_winner: list[float] | None
    decile_reference_loser: list[float] | None
    decile_pairs: list[int] | None
    """Number of pairs with a margin."""
    decile_correct: list[float] | None
    """Number of pairs that are ranked correctly, as in ``accuracy``."""
    figures: dict[str, float]
    """What safeguard and objective show of themselves, averaged over the batch."""


def columns_of(losses: Tensor, batch: Batch, sides: Tensor, *figures: Values) -> Values:
    """What a step measured of each row, by name, ``[n]``: NaN where something was not computed.

    Args:
        losses: Without gradient.
        batch: What the objective was shown.
        sides: Which image of its pair each one is, 0 for the winner, ``int64[m]``.
        figures: Further columns, for :attr:`StepMetrics.figures`.
    """
    found = {"loss": losses, "timestep": batch.timesteps}
    gone, lost = losses.new_full(losses.shape, float("nan")), sides.to(losses.device) == 1
    known: dict[str, list[Tensor | None]] = {
        "policy": [side.error.detach() for side in batch.sides],
        "reference": [side.reference_error for side in batch.sides],
    }
    for who, errors in known.items():
        each = [gone if error is None else error for error in errors]
        if len(each) == 1:
            each = [each[0].where(~lost, gone), each[0].where(lost, gone)]
        found[f"{who}_winner"], found[f"{who}_loser"] = each
    for values in figures:
        found |= {f"figures/{name}": column for name, column in values.items()}
    return {name: column.to(losses.dtype) for name, column in found.items()}


class StepStatistics:
    """What :func:`columns_of` gave of a step's whole batch, on the CPU, for its line in the log."""

    def __init__(self, columns: Values) -> None:
        self.columns = columns

    @property
    def finite(self) -> bool:
        """Whether every loss is."""
        return bool(self.columns["loss"].isfinite().all())

    def metrics(
        self, step: int, norm: float | None, lr: float, event: Event, timesteps: int
    ) -> StepMetrics:
        """The line of the log; ``timesteps`` is how many there are."""
        winner, loser, ref_winner, ref_loser = (self.columns[name] for name in ERRORS)
        margins = (ref_winner - winner) - (ref_loser - loser)
        correct = (margins > 0).float() + 0.5 * (margins == 0).float()
        correct = correct.where(~margins.isnan(), margins)
        deciles = self.columns["timestep"].long() * 10 // timesteps
        return StepMetrics(
            step=step,
            loss=float(self.columns["loss"].mean()),
            policy_winner=_mean(winner),
            policy_loser=_mean(loser),
            reference_winner=_mean(ref_winner),
            reference_loser=_mean(ref_loser),
            margin=_mean(margins),
            accuracy=_mean(correct),
            divergence=event.divergence,
            reference_action=event.action,
            grad_norm=norm,
            lr=lr,
            timestep_deciles=deciles.bincount(minlength=10).tolist(),
            decile_winners=_decile_counts(winner, deciles),
            decile_losers=_decile_counts(loser, deciles),
            decile_policy_winner=_decile_sums(winner, deciles),
            decile_policy_loser=_decile_sums(loser, deciles),
            decile_reference_winner=_decile_sums(ref_winner, deciles),
            decile_reference_loser=_decile_sums(ref_loser, deciles),
            decile_pairs=_decile_counts(margins, deciles),
            decile_correct=_decile_sums(correct, deciles),
            figures={
                name.removeprefix("figures/"): float(column.mean())
                for name, column in self.columns.items()
                if name.startswith("figures/")
            },
        )


def _mean(column: Tensor) -> float | None:
    """Mean of what was computed."""
    known = column[~column.isnan()]
    return float(known.mean()) if len(known) else None


def _decile_sums(column: Tensor, deciles: Tensor) -> list[float] | None:
    """Sum of what was computed in each tenth of the timesteps; None if nothing was."""
    known = ~column.isnan()
    if not known.any():
        return None
    sums: list[float] = deciles[known].bincount(column[known].double(), minlength=10).tolist()
    return sums


def _decile_counts(column: Tensor, deciles: Tensor) -> list[int] | None:
    """How much was computed in each tenth of the timesteps; None if nothing was."""
    known = ~column.isnan()
    return deciles[known].bincount(minlength=10).tolist() if known.any() else None


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
