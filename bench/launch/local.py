"""Run stages in processes of this machine, as many at a time as their needs allow."""

import multiprocessing
import queue
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from typing import Protocol

from bench.launch.worker import send, start_worker, stop
from bench.stages.kinds import Stage
from bench.stages.store import Store
from trainers.errors import UserError

Message = tuple[str, int]
"""Identity of a stage, and how many of its units are done."""


class Display(Protocol):
    """Shows how far the stages are."""

    def begin(self, stage: Stage) -> None:
        """A stage was given to a worker."""

    def advance(self, identity: str, units: int) -> None:
        """A stage has done this many units in all."""

    def end(self, stage: Stage, error: str | None) -> None:
        """A stage is done, or failed."""


@dataclass
class Outcome:
    """What became of the stages that had to run."""

    finished: list[Stage] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Error by identity of the stage; stages that needed a failed one are named with it."""


def run_stages(stages: Sequence[Stage], store: Store, workers: int, display: Display) -> Outcome:
    """Run stages, each after those it needs. A failure stops only what depends on it.

    Every worker is single-threaded: on the small tensors of a miniature two processes do more than
    two threads, and the bits of a result do not depend on how many workers there are.
    """
    outcome = Outcome()
    waiting = {stage.id: stage for stage in stages}
    context = multiprocessing.get_context("spawn")
    messages: Queue[Message] = context.Queue()
    pool = ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(messages,))
    running: dict[Future[None], Stage] = {}
    try:
        while waiting or running:
            for stage in _ready(waiting, running, outcome, workers):
                del waiting[stage.id]
                store.forget(stage.id)
                running[pool.submit(_execute, stage, store)] = stage
                display.begin(stage)
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            _pass_on(messages, display)
            for future in done:
                _finish(running.pop(future), future, outcome, display)
            _drop_hopeless(waiting, outcome, display)
        pool.shutdown()
    except BaseException:
        stop(pool)
        raise
    return outcome


def _ready(
    waiting: dict[str, Stage], running: dict[Future[None], Stage], outcome: Outcome, workers: int
) -> list[Stage]:
    busy = {stage.id for stage in running.values()}
    free = [
        stage
        for stage in waiting.values()
        if not any(need.id in waiting or need.id in busy for need in stage.needs)
    ]
    return free[: workers - len(running)]


def _finish(stage: Stage, future: Future[None], outcome: Outcome, display: Display) -> None:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise UserError(
            f"a worker process died, perhaps for want of memory, during {stage.label} or beside "
            "it: run the same command again, if need be with fewer --workers"
        ) from error
    if error is None:
        outcome.finished.append(stage)
        display.end(stage, None)
    else:
        outcome.failed[stage.id] = f"{stage.label}: {type(error).__name__}: {error}"
        display.end(stage, str(error))


def _drop_hopeless(waiting: dict[str, Stage], outcome: Outcome, display: Display) -> None:
    for stage in list(waiting.values()):
        broken = [need for need in stage.needs if need.id in outcome.failed]
        if broken:
            del waiting[stage.id]
            outcome.failed[stage.id] = f"{stage.label}: not run, because {broken[0].label} failed"
            display.end(stage, f"{broken[0].label} failed")


def _pass_on(messages: "Queue[Message]", display: Display) -> None:
    while True:
        try:
            identity, units = messages.get_nowait()
        except queue.Empty:
            return
        display.advance(identity, units)


def _execute(stage: Stage, store: Store) -> None:
    import torch

    from bench.terminal import silence_libraries

    torch.set_num_threads(1)
    silence_libraries()

    def report(units: int) -> None:
        send((stage.id, units))

    stage.execute(store, report)
