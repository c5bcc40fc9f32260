"""One training run in several processes on this machine, started by the one that wants it."""

import multiprocessing
import os
import queue
import socket
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING

from bench.launch.worker import send, start_worker, stop
from bench.store import Store
from trainers.errors import UserError
from trainers.metrics import StepMetrics

if TYPE_CHECKING:
    from bench.stages import TrainStage
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
        done, running = wait(running, timeout=0.1, return_when=FIRST_EXCEPTION)
        _pass_on(steps, on_step)
        for rank in done:
            rank.result()
    _pass_on(steps, on_step)


def _pass_on(steps: "Queue[Step]", on_step: "OnStep") -> None:
    while True:
        try:
            on_step(*steps.get_nowait())
        except queue.Empty:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _rank(
    rank: int, count: int, port: int, stage: "TrainStage", folder: Path, store: Store
) -> None:
    from bench.quiet import silence_libraries
    from bench.train import train_here

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
