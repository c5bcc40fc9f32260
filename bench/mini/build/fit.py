"""One small resumable training loop for everything the miniature world ships."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers import checkpoint
from trainers.average import mix_in
from trainers.machine.processes import ALONE, Processes

SHARDS = 2
"""Parts of every batch. The sum of two gradients does not depend on their order, so one process
that takes both parts and two that take one each give the same run."""


@dataclass(frozen=True)
class Schedule:
    """Learning rate: warm-up, constant, then linear to zero over the last fraction ``decay``."""

    steps: int
    lr: float
    warmup: int = 100
    decay: float = 0.35
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    save_every: int = 250

    def lr_at(self, step: int) -> float:
        """Learning rate of 0-based ``step``."""
        left = (self.steps - step) / (self.decay * self.steps)
        return self.lr * min(1.0, (step + 1) / self.warmup, left)


def fit(
    model: nn.Module,
    average: nn.Module,
    loss_at: Callable[[int, int], Tensor],
    schedule: Schedule,
    path: Path,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> None:
    """Train ``model`` and leave its exponential moving average in ``average``.

    ``loss_at(step, shard)`` is the mean loss of one of ``SHARDS`` equal parts of a batch. It must
    depend on its arguments only, so that a resumed run is the same run.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay
    )
    modules = {"model": model, "average": average}
    first = 0
    if path.exists():
        first = int(checkpoint.load(path, modules, optimizer)["step"])
    model.train()
    began, running = time.monotonic(), 0.0
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step)
        optimizer.zero_grad(set_to_none=True)
        mine = range(processes.rank, SHARDS, processes.count)
        part = sum(_backward(loss_at(step, shard)) for shard in mine)
        loss = float(processes.gather(torch.tensor([[part]])).sum())
        processes.sum_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _follow(average, model, min(schedule.ema_decay, (1 + step) / (10 + step)))
        running = 0.98 * running + 0.02 * loss if running else loss
        done = step + 1
        if processes.main and (done % schedule.save_every == 0 or done == schedule.steps):
            checkpoint.save(path, modules, optimizer, {"step": done})
            rate = (done - first) / (time.monotonic() - began)
            say(f"{path.stem}: step {done}/{schedule.steps} loss {running:.5f} {rate:.2f} steps/s")


def _backward(loss: Tensor) -> float:
    part = loss / SHARDS
    part.backward()
    return part.item()


def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    mix_in(average, model, 1 - decay)
