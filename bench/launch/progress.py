"""How far a run is: bars on a terminal, plain lines anywhere else."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from bench.spec.model import Cost
from bench.stages.base import Stage


class PlainDisplay:
    """One line per finished stage, but for those that are only counted."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.count = 0
        self.began: dict[str, float] = {}

    def begin(self, stage: Stage) -> None:
        """See :class:`bench.launch.local.Display`."""
        self.began[stage.id] = time.monotonic()

    def advance(self, identity: str, units: int) -> None:
        """Nothing: a log file wants no bars."""

    def end(self, stage: Stage, error: str | None) -> None:
        """See :class:`bench.launch.local.Display`."""
        self.count += 1
        if error is None and not stage.logged and self.count < self.total:
            return
        seconds = time.monotonic() - self.began.get(stage.id, time.monotonic())
        outcome = f"done in {seconds:.0f} s" if error is None else f"FAILED: {error}"
        line = f"[{self.count}/{self.total}] {stage.label}: {outcome}"
        self.console.print(line, markup=False, soft_wrap=True)


class LiveDisplay:
    """A bar for all stages with the time left, and one for each stage that is running."""

    def __init__(self, progress: Progress, stages: Sequence[Stage], cost: Cost, workers: int):
        self.progress = progress
        self.cost = cost
        self.workers = workers
        self.units = {stage.id: stage.units for stage in stages}
        self.weight = {stage.id: stage.expected_seconds(cost) for stage in stages}
        self.fraction: dict[str, float] = {}
        self.tasks: dict[str, TaskID] = {}
        self.count = 0
        self.began = time.monotonic()
        self.total = progress.add_task("all stages", total=sum(self.weight.values()), note="")
        self._show_total()

    def begin(self, stage: Stage) -> None:
        """See :class:`bench.launch.local.Display`."""
        self.tasks[stage.id] = self.progress.add_task(stage.label, total=stage.units, note="")

    def advance(self, identity: str, units: int) -> None:
        """See :class:`bench.launch.local.Display`."""
        if identity in self.tasks:
            note = f"{units}/{self.units[identity]}"
            self.progress.update(self.tasks[identity], completed=units, note=note)
            self.fraction[identity] = units / self.units[identity]
            self._show_total()

    def end(self, stage: Stage, error: str | None) -> None:
        """See :class:`bench.launch.local.Display`."""
        self.count += 1
        self.fraction[stage.id] = 1.0
        if stage.id in self.tasks:
            self.progress.remove_task(self.tasks.pop(stage.id))
        if error is not None:
            line = Text.assemble(("failed", "red"), f" {stage.label}: {error}")
            self.progress.console.print(line)
        self._show_total()

    def _show_total(self) -> None:
        done = sum(self.weight[i] * fraction for i, fraction in self.fraction.items())
        total = sum(self.weight.values())
        note = f"{self.count}/{len(self.units)}"
        if done > 0.02 * total:
            left = (time.monotonic() - self.began) * (total - done) / done
            note += f", about {duration(left)} left"
        self.progress.update(self.total, completed=done, note=note)


def duration(seconds: float) -> str:
    """``45 s``, ``7 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def display(
    console: Console, stages: Sequence[Stage], cost: Cost, workers: int
) -> Iterator[LiveDisplay | PlainDisplay]:
    """Bars if ``console`` is a terminal, lines otherwise."""
    if not console.is_terminal:
        yield PlainDisplay(console, len(stages))
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield LiveDisplay(progress, stages, cost, workers)
