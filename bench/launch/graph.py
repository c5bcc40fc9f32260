"""Which stages can run, which have run, and which never will. Knows nothing of where they run."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from bench.stages.base import Stage


@dataclass
class Outcome:
    """What became of the stages that had to run."""

    finished: list[Stage] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Error by identity of the stage; stages that needed a failed one are named with it."""


class Graph:
    """Stages, each to begin after those it needs; a need that is not among them is there already.

    Every edge is looked at once: when the stage it comes from finishes or fails.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Of the stages that are ready, the first in ``stages`` begins first."""
        self.outcome = Outcome()
        self._stages = stages
        place = {stage.id: number for number, stage in enumerate(stages)}
        self._dependants: dict[str, list[int]] = {identity: [] for identity in place}
        self._unmet = [0] * len(stages)
        for number, stage in enumerate(stages):
            for identity in {earlier.id for earlier in stage.follows} & place.keys():
                self._dependants[identity].append(number)
                self._unmet[number] += 1
        self._ready = [number for number, unmet in enumerate(self._unmet) if not unmet]
        heapify(self._ready)
        self._open = len(stages)

    @property
    def settled(self) -> bool:
        """Whether every stage has finished, failed, or is hopeless."""
        return self._open == 0

    def begin(self) -> Stage | None:
        """The next stage that is ready; it is the caller's now. None if there is none."""
        return self._stages[heappop(self._ready)] if self._ready else None

    def finish(self, stage: Stage) -> None:
        """A stage that began is done; others may be ready now."""
        self.outcome.finished.append(stage)
        self._open -= 1
        for number in self._dependants[stage.id]:
            self._unmet[number] -= 1
            # What another need's failure has made hopeless keeps that need, and is never ready.
            if not self._unmet[number]:
                heappush(self._ready, number)

    def fail(self, stage: Stage, error: str) -> list[tuple[Stage, Stage]]:
        """A stage that began has failed. Gives what is hopeless now, each with its failed need."""
        self.outcome.failed[stage.id] = f"{stage.label}: {error}"
        self._open -= 1
        hopeless: list[tuple[Stage, Stage]] = []
        failed = deque([stage])
        while failed:
            need = failed.popleft()
            for number in self._dependants[need.id]:
                other = self._stages[number]
                if other.id not in self.outcome.failed:
                    why = f"{other.label}: not run, because {need.label} failed"
                    self.outcome.failed[other.id] = why
                    self._open -= 1
                    hopeless.append((other, need))
                    failed.append(other)
        return hopeless
