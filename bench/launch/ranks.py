"""One training run in several processes on this machine, started by the one that wants it."""

import multiprocessing
import os
import queue
import socket
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING

from bench.launch.worker import send, start_worker, stop
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.metrics import StepMetrics

if TYPE_CHECKING:
    from bench.stages.kinds import TrainStage
    from trainers.core import OnStep

Step = tuple[int, StepMetrics]


def run_ranks(stage: "TrainStage", folder: Path, store: Store, on_step: "OnStep") -> None:
    """Train in as many processes as the stage asks for, and pass on what the first one reports.

    Raises:
        UserError: If a process died; whatever else a process raises is raised here.
    """
    count = stage.training.processes
    context = multiprocessing.get_context("spawn")
    steps: Queue[Step] = context.Queue()
    pool = ProcessPoolExecutor(count, context, initializer=start_worker, initargs=(steps,))
    port = _free_port()
    try:
        ranks = [pool.submit(_rank, r, count, port, stage, folder, store) for r in range(count)]
        _follow(ranks, steps, on_step)
        pool.shutdown()
        _pass_on_rest(steps, on_step)
    except BrokenProcessPool as error:
        stop(pool)
        raise UserError(
            f"one of {count} processes died, perhaps for want of memory, during {stage.label}: run "
            "the same command again, if need be with fewer processes"
        ) from error
    except BaseException:
        stop(pool)
        raise


def _follow(ranks: list[Future[None]], steps: "Queue[Step]", on_step: "OnStep") -> None:
    """Until all have ended; when one fails, the others would wait for it for ever."""
    running = set(ranks)
    while running:
        with suppress(queue.Empty):
            on_step(*steps.get(timeout=0.1))
        for rank in [rank for rank in running if rank.done()]:
            running.remove(rank)
            rank.result()


def _pass_on_rest(steps: "Queue[Step]", on_step: "OnStep") -> None:
    """What processes that have ended left; before they end, it may still be on its way."""
    with suppress(queue.Empty):
        while True:
            on_step(*steps.get_nowait())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(
    rank: int, count: int, port: int, stage: "TrainStage", folder: Path, store: Store
) -> None:
    from bench.stages.train import train_here
    from bench.terminal import silence_libraries

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    silence_libraries()
    train_here(stage, folder, store, lambda step, metrics: send((step, metrics)))
