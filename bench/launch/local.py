"""Run stages in processes of this machine, as many at a time as their needs allow."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from bench.launch.graph import Graph, Outcome
from bench.stages.base import TRACEBACK, Stage
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.machine.spawn import Workers, send


class Display(Protocol):
    """Shows how far the stages are."""

    def begin(self, stage: Stage) -> None:
        """A stage was given to a worker."""

    def advance(self, identity: str, units: int) -> None:
        """A stage has done this many units in all."""

    def end(self, stage: Stage, error: str | None) -> None:
        """A stage is done, or failed."""


def run_stages(stages: Sequence[Stage], store: Store, workers: int, display: Display) -> Outcome:
    """Run stages, each after those it needs. A failure stops only what depends on it.

    Every worker is single-threaded: on the small tensors of a miniature two processes do more than
    two threads, and the bits of a result do not depend on how many workers there are.
    """
    graph = Graph(stages)
    running: dict[Future[None], Stage] = {}
    try:
        with Workers(workers) as pool:
            while not graph.settled:
                while len(running) < workers and (stage := graph.begin()) is not None:
                    store.forget(stage.id)
                    running[pool.submit(_execute, stage, store)] = stage
                    display.begin(stage)
                done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for identity, units in pool.messages():
                    display.advance(identity, units)
                for future in done:
                    _settle(running[future], future, graph, store, display)
                    del running[future]
    except BrokenProcessPool as error:
        during = " or ".join(stage.label for stage in running.values()) or "the first stage"
        raise UserError(
            f"a worker process died, perhaps for want of memory, during {during}: run the same "
            "command again, if need be with fewer --workers"
        ) from error
    return graph.outcome


def _settle(
    stage: Stage, future: Future[None], graph: Graph, store: Store, display: Display
) -> None:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    if error is None:
        graph.finish(stage)
        display.end(stage, None)
        return
    why, kept = f"{type(error).__name__}: {error}", stage.output(store) / TRACEBACK
    if kept.is_file():  # There is none if the stage could not so much as begin.
        why += f" (traceback: {kept})"
    hopeless = graph.fail(stage, why)
    display.end(stage, why)
    for other, need in hopeless:
        display.end(other, f"{need.label} failed")


def _execute(stage: Stage, store: Store) -> None:
    import torch

    from bench.terminal import silence_libraries

    torch.set_num_threads(1)
    silence_libraries()

    def report(units: int) -> None:
        send((stage.id, units))

    stage.execute(store, report)
