"""Processes that this one starts on its machine: they tell it how far they are, and end with it.

This module loads nothing heavy: a new process sets its environment before torch is imported.
"""

import multiprocessing
import os
import pickle
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.queues import Queue, SimpleQueue
from types import TracebackType
from typing import Any

from trainers.errors import UserError

_to_parent: "Queue[Any] | None" = None


class Workers:
    """Single-threaded processes that take turns at calls; a context that waits for them.

    Left by an exception, it stops them at once: whatever they were doing can be taken up again.
    They also end when this process does, however it ends.
    """

    def __init__(self, count: int, environments: Sequence[Mapping[str, str]] = ()) -> None:
        """``count`` processes are started when there is something to do.

        Each adds one of the ``environments`` to its own, in turn, before it loads anything.
        """
        context = multiprocessing.get_context("spawn")
        self._messages: Queue[Any] = context.Queue()
        turns: SimpleQueue[Mapping[str, str]] = context.SimpleQueue()  # Without a thread.
        for number in range(count):
            turns.put(environments[number % len(environments)] if environments else {})
        self._pool = ProcessPoolExecutor(
            count, context, initializer=_start, initargs=(self._messages, turns)
        )

    def submit(self, function: Callable[..., None], *arguments: Any) -> Future[None]:
        """Have a function of a module called in one of the processes.

        Raises:
            RuntimeError: If this process can start no thread more.
        """
        with _uninterrupted():
            calls: Any = vars(self._pool)["_call_queue"]
            if calls._thread is None:
                # The pool's own thread would start it, die of failing, and leave all to wait.
                calls._start_thread()
            # What cannot be imported over there is an answer, and not the end of the process.
            future = self._pool.submit(_call, pickle.dumps((function, arguments)))
            with self._pool._shutdown_lock:
                # Its thread wakes before this call starts a process, and would never hear of the
                # death of that one: until it looks again, it waits for those it knew.
                self._pool._executor_manager_thread_wakeup.wakeup()
            return future

    def messages(self) -> Iterator[Any]:
        """What has come from :func:`send` since the last call; the rest may be on its way."""
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self._pool.shutdown()
            return
        with _uninterrupted():
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            with suppress(
                RuntimeError
            ):  # Its thread could not be started, and is not to be joined.
                self._pool.shutdown(cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put an interruption off; a process that is started meanwhile never hears of Ctrl-C.

    Ctrl-C reaches every process of a terminal, one that only just starts, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # No interruption comes here.
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(each, lambda number, _: came.append(number)) for each in numbers]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Which is handed down.
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for each, handler in zip(numbers, handlers, strict=True):
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


def _call(call: bytes) -> None:
    function, arguments = pickle.loads(call)
    function(*arguments)


def send(message: Any) -> None:
    """Tell the process that started this one."""
    assert _to_parent is not None, "only a process that was started here has one to tell"
    _to_parent.put(message)


def spawn(
    count: int,
    function: Callable[..., None],
    *arguments: Any,
    on_message: Callable[[Any], None] = lambda message: None,
) -> None:
    """Call ``function(*arguments)`` in ``count`` processes that can join one group.

    Their environment is the one that ``accelerate launch`` or ``torchrun`` sets, so that
    :func:`trainers.machine.processes.joined` makes them one group of ``torch.distributed``.

    Args:
        count: Number of processes.
        function: A function of a module.
        arguments: What can be pickled.
        on_message: Called here with each message that a process gives to :func:`send`.

    Raises:
        UserError: If a process dies. Whatever one raises is raised here, and ends the others, which
            would wait for it for ever.
    """
    port = _free_port()
    try:
        with Workers(count) as workers:
            running = {
                workers.submit(_join, rank, count, port, function, arguments)
                for rank in range(count)
            }
            while running:
                done, running = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
                for message in workers.messages():
                    on_message(message)
                for future in done:
                    future.result()
        for message in workers.messages():  # Now that all have ended, nothing is on its way.
            on_message(message)
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {count} processes died, perhaps for want of memory: run the same command "
            "again, if need be with fewer processes"
        ) from error


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _join(
    rank: int, count: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    function(*arguments)


def _start(messages: "Queue[Any]", turns: "SimpleQueue[Mapping[str, str]]") -> None:
    """Set a new process up: one thread, its parent to tell, and no life after it.

    Whatever prints here, standard output is the parent's.
    """
    global _to_parent
    os.dup2(2, 1)
    _to_parent = messages
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **turns.get()}
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
