"""Run a training function in two processes that share every batch."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

SHARDS = 2
"""Parts of every batch. The sum of two gradients does not depend on their order, so one process
that takes both parts and two that take one each give the same run."""


def in_processes(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call ``function(*arguments)`` in ``count`` single-threaded processes of one group."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        spawn(_join, (count, meeting, function, arguments), nprocs=count)


def _join(
    rank: int, count: int, meeting: str, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    try:
        function(*arguments)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """Rank of this process and size of its group: (0, 1) outside one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_gradients(model: nn.Module, loss: float) -> float:
    """Sum the gradients over the group in place, and return the sum of the losses."""
    if rank_and_size()[1] == 1:
        return loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([torch.tensor([loss]), *(g.flatten() for g in gradients)])
    dist.all_reduce(flat)
    parts = flat[1:].split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return float(flat[0])
