"""Run stages by an executor, in the order that their needs allow."""

import queue
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from bench.launch.base import Executor, Failed, Lost
from bench.launch.graph import Graph, Outcome
from bench.stages.base import TRACEBACK, Stage
from bench.stages.store import Store

Ended = queue.SimpleQueue[tuple[Stage, Future[None]]]
TICK = 0.2
"""Seconds between two looks at how far the stages are."""


class Display(Protocol):
    """Shows how far the stages are."""

    def begin(self, stage: Stage) -> None:
        """A stage was given to the executor."""

    def advance(self, identity: str, units: int) -> None:
        """A stage has done this many units in all."""

    def end(self, stage: Stage, error: str | None) -> None:
        """A stage is done, or failed."""


def run_stages(
    stages: Sequence[Stage], store: Store, executor: Executor, display: Display
) -> Outcome:
    """Run stages, each after those it needs. A failure stops only what depends on it.

    Raises:
        UserError: If the executor can run no stage any more.
    """
    graph = Graph(stages)
    running = 0
    ended: Ended = queue.SimpleQueue()
    with executor:
        executor.expect(stages)
        while not graph.settled:
            while running < executor.slots and (stage := graph.begin()) is not None:
                store.forget(stage.id)
                future = executor.submit(stage)
                display.begin(stage)
                future.add_done_callback(partial(_end, ended, stage))
                running += 1
            waiting = _waiting(ended)
            for identity, units in executor.poll():
                display.advance(identity, units)
            for stage, future in waiting:
                running -= 1
                _settle(stage, future, graph, store, display)
    return graph.outcome


def _end(ended: Ended, stage: Stage, future: Future[None]) -> None:
    ended.put((stage, future))


def _waiting(ended: Ended) -> list[tuple[Stage, Future[None]]]:
    """What has ended, once something has or a tick is over."""
    found = []
    try:
        found.append(ended.get(timeout=TICK))
        while True:
            found.append(ended.get_nowait())
    except queue.Empty:
        return found


def _settle(
    stage: Stage, future: Future[None], graph: Graph, store: Store, display: Display
) -> None:
    error = future.exception()
    if isinstance(error, Lost):
        raise error
    if error is None:
        graph.finish(stage)
        display.end(stage, None)
        return
    why = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
    kept = stage.output(store) / TRACEBACK
    if kept.is_file():  # There is none if the stage could not so much as begin.
        why += f" (traceback: {kept})"
    hopeless = graph.fail(stage, why)
    display.end(stage, why)
    for other, need in hopeless:
        display.end(other, f"{need.label} failed")
