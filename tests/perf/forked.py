"""What a piece of work takes: in a process of its own, forked from one that has all libraries."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from bench_train import import_everything, resident


class Taken(NamedTuple):
    """Processor seconds, and MiB that the process grew by at its peak."""

    seconds: float
    mib: float


def taken(work: Callable[[], float | None]) -> Taken:
    """Of ``work``, which may give the seconds that count; those of all of it otherwise."""
    import_everything()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(work, sender))
    process.start()
    sender.close()
    try:
        return Taken(*receiver.recv())
    finally:
        process.join()


def _measure(work: Callable[[], float | None], sender: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    before, began = resident("VmRSS"), time.process_time()
    counted = work()
    seconds = time.process_time() - began if counted is None else counted
    sender.send((seconds, (resident("VmHWM") - before) * 1024))


def ratio(values: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and largest of the ratios of the rounds."""
    each = [value / other for value, other in zip(values, base, strict=True)]
    return statistics.median(each), min(each), max(each)
