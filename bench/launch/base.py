"""What runs stages: one protocol for this machine and for clusters."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self

from bench.stages.base import Stage
from trainers.errors import UserError


class Executor(Protocol):
    """Runs stages somewhere; a context, left by an exception if there is no use in going on."""

    slots: int
    """How many stages it takes at a time."""

    def expect(self, stages: Sequence[Stage]) -> None:
        """Told once, before any is submitted, all stages that are to run, each after its needs."""

    def submit(self, stage: Stage) -> Future[None]:
        """Have a stage run whose needs are done. The future fails with why the stage did."""

    def poll(self) -> Iterator[tuple[str, int]]:
        """Called again and again: looks after what runs, and gives units done by stage."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...


class Failed(Exception):
    """Why a stage failed, in words for people, where its own exception is on another machine."""


class Lost(UserError):
    """No stage can run any more: raised in place of the failure of one."""
