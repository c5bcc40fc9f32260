"""Jobs of SLURM, by its own commands.

Every stage is a job, stages of one kind that wait for the same ones are an array, and SLURM itself
keeps their order: all are in its queue before the first has run, so that this process may end. The
ids of jobs are in the store, where the same command finds what runs, and waits for it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from bench.launch.base import Failed
from bench.launch.sbatch import Jobs, submit
from bench.spec.launch import Slurm
from bench.stages.base import Stage
from bench.stages.described import describe
from bench.stages.store import Store
from trainers.files import as_json, tell, write_text
from trainers.input.paths import is_regular
from trainers.input.text import read_json
from trainers.locks import locked

FOLDER = "jobs"
"""Of the store: scripts, logs, and which job each stage is."""
EVERY = 2.0
"""Seconds between two looks at the queue."""
GRACE = 60.0
"""Seconds after its job's end that a stage's record may take to be seen on a shared disk."""
LARGEST_ARRAY = 500
"""Jobs of an array at most; SLURM's own limit is 1000 if nothing else is set."""
LAST = 300
"""Characters of a log that are told."""


class SlurmJobs:
    """Runs stages as jobs; they go on if this process ends."""

    slots = 10**6

    def __init__(self, store: Store, settings: Slurm) -> None:
        """Looks for SLURM's commands.

        Raises:
            UserError: If there are none, or no controller answers.
        """
        self._store = store
        self._settings = settings
        self._folder = store.root.resolve() / FOLDER
        self._jobs = Jobs()
        self._job: dict[str, str] = {}
        self._waiting: dict[str, tuple[Stage, Future[None]]] = {}
        self._gone: dict[str, float] = {}
        self._looked = float("-inf")

    def __enter__(self) -> Self:
        return self

    def expect(self, stages: Sequence[Stage]) -> None:
        """Put every stage into the queue that is in it under no job yet.

        Raises:
            UserError: If SLURM refuses a job; the message has its reason.
        """
        describe(stages, self._store)
        with locked(self._folder / ".lock"):  # Whoever else runs them adopts these.
            live = self._jobs.live()
            for stage in stages:
                job, name = self._recorded(stage.id)
                if name is not None and live.get(job) == name:
                    self._job[stage.id] = job
            adopted = len(self._job)
            new = [stage for stage in stages if stage.id not in self._job]
            for group in _groups(new):
                self._submit(group)
        if adopted:
            tell(f"{adopted} stages are in SLURM's queue already, and are waited for")

    def _submit(self, group: list[Stage]) -> None:
        after = sorted({self._job[n.id] for n in group[0].follows if n.id in self._job})
        warning = self._settings.warning
        identities = [stage.id for stage in group]
        job = self._settings.of(group[0].work)
        root = self._store.root.resolve()
        name, numbers = submit(self._folder, root, identities, job, after, warning)
        for identity, number in zip(identities, numbers, strict=True):
            self._job[identity] = number
            said = {"job": number, "name": name, "stage": identity}
            write_text(self._record(identity), as_json(said))

    def _record(self, identity: str) -> Path:
        return self._folder / f"{identity[:16]}.json"

    def _recorded(self, identity: str) -> tuple[str, str | None]:
        """Id and name of the job that a stage was; no name if there was none."""
        path = self._record(identity)
        said = read_json(path) if is_regular(path) else None
        if isinstance(said, dict) and said.get("stage") == identity:
            return str(said.get("job")), str(said.get("name"))
        return "", None

    def submit(self, stage: Stage) -> Future[None]:
        """See the protocol; the job is in the queue already."""
        future: Future[None] = Future()
        self._waiting[stage.id] = (stage, future)
        return future

    def poll(self) -> Iterator[tuple[str, int]]:
        """See the protocol. While no controller answers, nothing is known to have failed."""
        if monotonic() - self._looked >= EVERY:
            self._looked = monotonic()
            live = self._jobs.look()
            if live is not None:
                self._settle(live)
        yield from ()

    def _settle(self, live: dict[str, str]) -> None:
        for identity, (stage, future) in list(self._waiting.items()):
            job = self._job[identity]
            if job in live:
                self._gone.pop(identity, None)
                continue
            self._store.forget(identity)
            if stage.done(self._store) is not None:
                del self._waiting[identity]
                future.set_result(None)
            elif self._over(identity, job):
                del self._waiting[identity]
                future.set_exception(Failed(self._why(job)))

    def _over(self, identity: str, job: str) -> bool:
        """Whether nothing more is to be hoped for from a job that is not in the queue."""
        since = self._gone.setdefault(identity, monotonic())
        return self._jobs.failed(job) or monotonic() - since > GRACE

    def _why(self, job: str) -> str:
        log = self._folder / f"{job}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        said = lines[-1][-LAST:] if lines else "it left no log"
        state = self._jobs.state(job)
        return f"job {job} of SLURM ended {state} (log: {log}): {said}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt) and self._waiting:
            tell(
                f"jobs {_range(self._job[i] for i in self._waiting)} of SLURM go on: the same "
                "command waits for them again, scancel ends them"
            )


def _range(jobs: Iterator[str]) -> str:
    numbers = sorted({int(job.partition("_")[0]) for job in jobs})
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _groups(stages: Sequence[Stage]) -> Iterator[list[Stage]]:
    """Stages of one kind that need the same ones, in their order; no group is too large."""
    groups: defaultdict[tuple[str, ...], list[Stage]] = defaultdict(list)
    for stage in stages:
        groups[(stage.kind, *(need.id for need in stage.follows))].append(stage)
    for group in groups.values():
        for first in range(0, len(group), LARGEST_ARRAY):
            yield group[first : first + LARGEST_ARRAY]
