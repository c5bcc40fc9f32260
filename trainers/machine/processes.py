"""The processes that train one run together; one process is the case of no others.

Every process has all data, and takes its own rows of each batch. Random draws belong to positions
of the stream and not to processes, so all that changes with their number is the order of sums.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from trainers.errors import UserError
from trainers.machine.precision import Precision
from trainers.machine.sharding import Sharding, sharding_of

ACCELERATE_PRECISION: dict[str, Precision] = {
    "no": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}


@dataclass(frozen=True)
class Processes:
    """This process's place, and what it does together with the others.

    Every process must make the same calls in the same order.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    sharding: Sharding | None = None
    """How weights are spread over the processes; None if each has all of them."""

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def gradient_factor(self) -> int:
        """What losses are multiplied by: sharded gradients come as means over the processes."""
        return self.count if self.sharding else 1

    def first(self, value: float) -> float:
        """The value that the first process has, so that all decide alike."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def gather(self, columns: Tensor) -> Tensor:
        """All columns ``[k, count * n]``, in the batch's order; each process gives ``[k, n]``."""
        if self.count == 1:
            return columns
        parts = [torch.empty_like(columns) for _ in range(self.count)]
        distributed.all_gather(parts, columns.contiguous())
        return torch.cat(parts, dim=1)

    def sum_gradients(self, network: nn.Module) -> None:
        """Add up the gradients of all processes; sharded ones are summed in the backward pass."""
        if self.count == 1 or self.sharding:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        for work in [distributed.all_reduce(g, async_op=True) for g in gradients]:
            work.wait()


ALONE = Processes()
"""One process on the CPU."""


def launched() -> int:
    """How many processes a launcher (``accelerate launch``, ``torchrun``) started; 1 if none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process, among those that were launched, is the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str = "cpu", precision: Precision = "float32") -> Iterator[Processes]:
    """Take a place among the processes that a launcher started; alone if there is no launcher.

    Args:
        device: What to run on; of a GPU's kind, each process takes one of its own.
        precision: That of the run, which accelerate's configuration must not contradict.

    Raises:
        UserError: If the launcher's configuration asks for what the trainer does not do.
    """
    if launched() == 1:
        yield Processes(device=device)
        return
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked != "no" and ACCELERATE_PRECISION.get(asked) != precision:
        raise UserError(
            f"accelerate's configuration asks for mixed_precision {asked!r}, the run for precision "
            f"{precision!r}: the run decides; set mixed_precision to 'no'"
        )
    from accelerate import PartialState

    kind = torch.device(device).type
    state = PartialState(cpu=kind == "cpu")
    if state.num_processes != launched() or state.device.type != kind:
        raise UserError(
            f"{launched()} processes were launched for device {device!r}, but accelerate found "
            f"{state.num_processes} on {state.device.type!r}: set training.device to that, or "
            "launch with --cpu"
        )
    here = "cpu" if kind == "cpu" else str(state.device)
    try:
        yield Processes(state.process_index, state.num_processes, here, sharding_of(kind))
    finally:
        state.destroy_process_group()
