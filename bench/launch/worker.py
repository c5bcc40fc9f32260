"""What every process that does work for another one is."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from typing import Any


def stop(pool: ProcessPoolExecutor) -> None:
    """Stop workers at once: whatever they were doing can be taken up again."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


_messages: "Queue[Any] | None" = None


def start_worker(messages: "Queue[Any]") -> None:
    """Prepare a worker before torch is imported: one thread, and never outlive the parent."""
    global _messages
    _messages = messages
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def send(message: Any) -> None:
    """Tell the process that started this one."""
    assert _messages is not None
    _messages.put(message)
