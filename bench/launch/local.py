"""Processes of this machine."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from types import TracebackType
from typing import Self

from bench.launch.alone import settle_libraries
from bench.launch.base import Lost
from bench.stages.base import Stage
from bench.stages.store import Store
from trainers.machine.spawn import Workers, send


class Local:
    """Runs stages in processes that this one starts, and that end with it.

    Every worker is single-threaded: on the small tensors of a miniature two processes do more than
    two threads, and the bits of a result do not depend on how many workers there are.
    """

    def __init__(self, store: Store, workers: int, shares: Sequence[str] = ()) -> None:
        """``workers`` processes, which take turns at the shares of this machine's GPUs.

        Args:
            store: Where the stages run.
            workers: How many run at a time.
            shares: What ``CUDA_VISIBLE_DEVICES`` is to each worker; none leaves it as it is.
        """
        self.slots = workers
        self._store = store
        self._pool = Workers(workers, [{"CUDA_VISIBLE_DEVICES": share} for share in shares])
        self._running: dict[str, str] = {}

    def expect(self, stages: Sequence[Stage]) -> None:
        """See the protocol."""

    def submit(self, stage: Stage) -> Future[None]:
        """See the protocol."""
        self._running[stage.id] = stage.label
        answer: Future[None] = Future()
        try:
            future = self._pool.submit(_execute, stage, self._store)
        except BrokenProcessPool as error:
            raise self._lost() from error
        future.add_done_callback(partial(self._end, stage, answer))
        return answer

    def _end(self, stage: Stage, answer: Future[None], future: Future[None]) -> None:
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            answer.set_exception(self._lost())
            return
        del self._running[stage.id]
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def _lost(self) -> Lost:
        during = " or ".join(list(self._running.values()))
        return Lost(
            f"a worker process died, perhaps for want of memory, during {during}: run the same "
            "command again, if need be with fewer --workers"
        )

    def poll(self) -> Iterator[tuple[str, int]]:
        """See the protocol."""
        yield from self._pool.messages()

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._pool.__exit__(kind, error, at)


def _execute(stage: Stage, store: Store) -> None:
    settle_libraries()

    def report(units: int) -> None:
        send((stage.id, units))

    stage.execute(store, report)
