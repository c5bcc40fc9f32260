"""Stages in processes of this machine. Run as a script, it is the parent that is to be killed."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from bench.launch.graph import Outcome
from bench.launch.local import Local
from bench.launch.run import run_stages
from bench.spec.launch import Work
from bench.spec.model import Cost
from bench.stages.base import TRACEBACK, Report, Stage
from bench.stages.store import Store
from trainers.errors import UserError


@dataclass(frozen=True)
class Task(Stage):
    """Does as its label says: fails, dies, sleeps, or writes a file."""

    kind: ClassVar[str] = "task"
    work: ClassVar[Work] = "score"
    order: ClassVar[int] = 0
    after: tuple["Task", ...] = ()

    def key(self) -> dict[str, Any]:
        return {"label": self.label}

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def units(self) -> int:
        return 2

    def expected_seconds(self, cost: Cost) -> float:
        return 0.0

    @property
    def needs(self) -> tuple[Stage, ...]:
        return self.after

    def run(self, folder: Path, store: Store, report: Report) -> None:
        report(1)
        if self.label.startswith("fail"):
            raise ValueError("no luck\ntoday")
        if self.label.startswith("die"):
            os._exit(9)
        if self.label.startswith("sleep"):
            (folder / "pid.part").write_text(str(os.getpid()))
            (folder / "pid.part").rename(folder / "pid")
            time.sleep(120)
        (folder / "needs").write_text(" ".join(need.label for need in self.needs))
        report(2)


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.errors: dict[str, str | None] = {}
        self.units: dict[str, list[int]] = {}
        self.running = 0
        self.most = 0

    def begin(self, stage: Stage) -> None:
        self.events.append(("begin", stage.label))
        self.running += 1
        self.most = max(self.most, self.running)

    def advance(self, identity: str, units: int) -> None:
        self.units.setdefault(identity, []).append(units)

    def end(self, stage: Stage, error: str | None) -> None:
        self.events.append(("end", stage.label))
        self.errors[stage.label] = error
        if ("begin", stage.label) in self.events:
            self.running -= 1


@pytest.fixture(scope="module")
def tasks() -> Callable[..., Any]:
    """``Task`` as a worker can import it, under a name of its own."""
    with pytest.MonkeyPatch.context() as patch:
        # Workers take the path of their parent.
        patch.syspath_prepend(Path(__file__).parent)
        module: ModuleType = importlib.import_module(Path(__file__).stem)
        yield module.Task


@dataclass(frozen=True)
class Ran:
    outcome: Outcome
    shown: Recorder
    store: Store
    stages: dict[str, Stage]


@pytest.fixture(scope="module")
def ran(tasks: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A graph given to two workers: one stage of it fails, and one was made from another source."""
    root = tmp_path_factory.mktemp("launch")
    source = tasks("source")
    stale = tasks("stale", (source,))
    for stage in (source, stale):
        stage.execute(Store(root), lambda _: None)
    for stage, inputs in ((stale, {source.id: "0" * 64}), (source, {})):
        (stage.output(Store(root)) / "more").write_text("as it was once made")
        Store(root).record(stage.kind, stage.id, inputs, 0)
    ending = tasks("ending", (stale,))

    first, fail, alone = tasks("first"), tasks("fail"), tasks("alone")
    second = tasks("second", (first,))
    lost = tasks("lost", (second, fail))
    later = tasks("later", (lost,))
    last = tasks("last", (second, alone))
    stages: Sequence[Stage] = (fail, first, second, lost, later, alone, last, stale, ending)
    store, shown = Store(root), Recorder()
    assert stale.done(store) is None  # The store has seen its record, which is out of date.
    outcome = run_stages(stages, store, Local(store, 2), shown)
    return Ran(outcome, shown, Store(root), {stage.label: stage for stage in stages})


GOOD = ("first", "second", "alone", "last", "stale", "ending")


def test_a_failure_stops_only_what_depends_on_it(ran: Ran) -> None:
    assert {s.label for s in ran.outcome.finished} == set(GOOD)
    assert set(ran.outcome.failed) == {ran.stages[n].id for n in ("fail", "lost", "later")}
    for label, stage in ran.stages.items():
        assert (stage.done(ran.store) is not None) == (label in GOOD)
    assert not ran.stages["lost"].output(ran.store).exists()


def test_what_was_made_from_another_source_is_made_again(ran: Ran) -> None:
    stale = ran.stages["stale"]
    assert stale in ran.outcome.finished
    assert not (stale.output(ran.store) / "more").exists()
    status = stale.done(ran.store)
    assert status is not None
    assert status.inputs == {need.id: digest(need, ran.store) for need in stale.needs}


def digest(stage: Stage, store: Store) -> str:
    status = stage.done(store)
    assert status is not None
    return status.digest


def test_a_failure_is_told_with_its_cause(ran: Ran) -> None:
    failed = {n: ran.outcome.failed[ran.stages[n].id] for n in ("fail", "lost", "later")}
    kept = ran.stages["fail"].output(ran.store) / TRACEBACK
    why = f"ValueError: no luck\ntoday (traceback: {kept})"
    assert failed == {
        "fail": f"fail: {why}",
        "lost": "lost: not run, because fail failed",
        "later": "later: not run, because lost failed",
    }
    assert ran.shown.errors == {
        **dict.fromkeys(GOOD),
        "fail": why,
        "lost": "fail failed",
        "later": "lost failed",
    }
    assert 'raise ValueError("no luck\\ntoday")' in kept.read_text()


def test_every_stage_begins_after_those_it_needs(ran: Ran) -> None:
    events = ran.shown.events
    assert len(events) == len(set(events))
    for label in ("second", "last", "ending"):
        for need in ran.stages[label].needs:
            assert events.index(("end", need.label)) < events.index(("begin", label))
        text = (ran.stages[label].output(ran.store) / "needs").read_text()
        assert text == " ".join(need.label for need in ran.stages[label].needs)


def test_no_more_stages_run_than_there_are_workers(ran: Ran) -> None:
    assert ran.shown.most == 2


def test_progress_reaches_the_display_in_order(ran: Ran) -> None:
    # The last reports may still be under way when a stage ends; none is made up.
    assert ran.shown.units.get(ran.stages["first"].id) in ([1], [1, 2])
    for units in ran.shown.units.values():
        assert units in ([1], [1, 2])


def test_a_worker_that_dies_is_told_in_one_line(tasks: Callable[..., Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UserError, match=r"a worker process died, .* during die") as caught:
        run_stages([tasks("die")], store, Local(store, 1), Recorder())
    assert "\n" not in str(caught.value)


def alive(pid: int) -> bool:
    """Whether a process runs: one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    with subprocess.Popen(command, start_new_session=True) as parent:
        try:
            assert wait_for(lambda: len(list(tmp_path.rglob("pid"))) == 2, 600)
            workers = [int(path.read_text()) for path in tmp_path.rglob("pid")]
            assert all(alive(pid) for pid in workers)
            os.kill(parent.pid, signal.SIGKILL)  # The parent alone, not its group.
            assert wait_for(lambda: not any(alive(pid) for pid in workers), 120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


if __name__ == "__main__":
    two = [Task("sleep one"), Task("sleep two")]
    kept = Store(Path(sys.argv[1]))
    run_stages(two, kept, Local(kept, 2), Recorder())
