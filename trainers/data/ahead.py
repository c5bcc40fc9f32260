"""Rows of a source in order, their images worked on by threads some rows ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from trainers.data.sources import BadPair, Rows
from trainers.input.image import BadImage

T = TypeVar("T")


def work_ahead(
    rows: Rows,
    wanted: Iterable[int],
    work: Callable[[int, tuple[bytes, bytes]], T],
    threads: int | None = None,
) -> Iterator[tuple[int, "T | BadPair"]]:
    """Yield each wanted row with what ``work(row, images)`` made of it, or why it is bad.

    Files are read by the thread that asks: readers of parquet are not made for several. ``threads``
    is the number of those that work; None for one a core.
    """
    threads = threads or len(os.sched_getaffinity(0))
    waiting: deque[tuple[int, Future[T] | BadPair]] = deque()

    def first() -> tuple[int, T | BadPair]:
        row, found = waiting.popleft()
        if isinstance(found, BadPair):
            return row, found
        try:
            return row, found.result()
        except BadImage as error:
            return row, BadPair(str(error))

    with ThreadPoolExecutor(threads) as pool:
        for row in wanted:
            try:
                waiting.append((row, pool.submit(work, row, rows.images(row))))
            except BadPair as error:
                waiting.append((row, error))
            if len(waiting) > 4 * threads:
                yield first()
        while waiting:
            yield first()
