"""How a batch is split over the processes of a run. Loads no torch."""

from dataclasses import dataclass

from trainers.errors import UserError


@dataclass(frozen=True)
class BatchSplit:
    """The part of every batch that one process trains on."""

    rows: int
    """Pairs per optimiser step."""
    parts: int
    """Forward and backward passes they are cut into, of equal size."""


def split_batch(batch_size: int, accumulation: int, count: int) -> BatchSplit:
    """One process's part of a batch, cut into parts no larger than those of a single process.

    Args:
        batch_size: Pairs per optimiser step, over all processes.
        accumulation: Parts that a single process cuts a batch into.
        count: Number of processes.

    Raises:
        UserError: If the batch cannot be cut into equal parts.
    """
    if batch_size % accumulation:
        raise UserError(
            f"batch_size {batch_size} cannot be cut into {accumulation} equal parts: choose an "
            "accumulation that divides it"
        )
    rows, rest = divmod(batch_size, count)
    parts = -(-accumulation // count)
    if rest or rows % parts:
        raise UserError(
            f"batch_size {batch_size} with accumulation {accumulation} cannot be shared by {count} "
            f"processes in equal parts: choose a batch_size that {count * parts} divides, or "
            "another number of processes"
        )
    return BatchSplit(rows, parts)
