"""What can run, what has run, what never will: no process, and stages that only have names."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.launch.graph import Graph
from bench.spec.launch import Work
from bench.spec.model import Cost
from bench.stages.base import Report, Stage
from bench.stages.store import Store


@dataclass(frozen=True)
class Named(Stage):
    """A stage that is never run."""

    kind: ClassVar[str] = "named"
    work: ClassVar[Work] = "score"
    order: ClassVar[int] = 0
    after: tuple["Named", ...] = ()

    def key(self) -> dict[str, Any]:
        raise AssertionError("the label is identity enough")

    @cached_property
    def id(self) -> str:
        return self.label

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def units(self) -> int:
        return 1

    def expected_seconds(self, cost: Cost) -> float:
        return 0.0

    @property
    def needs(self) -> tuple[Stage, ...]:
        return self.after

    def run(self, folder: Path, store: Store, report: Report) -> None:
        raise AssertionError("a graph runs nothing")


def begin_all(graph: Graph) -> list[str]:
    """Labels of everything that is ready."""
    found: list[str] = []
    while (stage := graph.begin()) is not None:
        found.append(stage.label)
    return found


ONE, TWO = Named("one"), Named("two")
BOTH = Named("both", (ONE, TWO))
LAST = Named("last", (BOTH, ONE))


def test_what_is_ready_begins_in_the_order_given_and_once() -> None:
    graph = Graph([LAST, TWO, BOTH, ONE])
    assert begin_all(graph) == ["two", "one"]
    assert begin_all(graph) == []
    assert not graph.settled


def test_a_stage_is_ready_when_the_last_of_its_needs_is_done() -> None:
    graph = Graph([ONE, TWO, BOTH, LAST])
    begin_all(graph)
    graph.finish(TWO)
    assert begin_all(graph) == []
    graph.finish(ONE)
    assert begin_all(graph) == ["both"]
    graph.finish(BOTH)
    assert begin_all(graph) == ["last"]
    assert not graph.settled
    graph.finish(LAST)
    assert graph.settled
    assert graph.outcome.finished == [TWO, ONE, BOTH, LAST]
    assert graph.outcome.failed == {}


def test_an_earlier_stage_that_gets_ready_goes_first() -> None:
    early, late = Named("early", (ONE,)), Named("late")
    graph = Graph([ONE, early, late])
    first = graph.begin()
    assert first is ONE
    graph.finish(ONE)
    assert begin_all(graph) == ["early", "late"]


def test_a_need_that_is_not_among_the_stages_is_there_already() -> None:
    assert begin_all(Graph([LAST, BOTH])) == ["both"]


def test_a_need_named_twice_counts_once() -> None:
    twice = Named("twice", (ONE, ONE))
    graph = Graph([ONE, twice])
    assert begin_all(graph) == ["one"]
    graph.finish(ONE)
    assert begin_all(graph) == ["twice"]


def test_a_failure_makes_hopeless_all_that_needs_it_and_nothing_else() -> None:
    other = Named("other", (TWO,))
    graph = Graph([ONE, TWO, BOTH, LAST, other])
    begin_all(graph)
    assert graph.fail(ONE, "ValueError: no luck") == [(BOTH, ONE), (LAST, ONE)]
    graph.finish(TWO)
    assert begin_all(graph) == ["other"]
    graph.finish(other)
    assert graph.settled
    assert graph.outcome.finished == [TWO, other]
    assert graph.outcome.failed == {
        "one": "one: ValueError: no luck",
        "both": "both: not run, because one failed",
        "last": "last: not run, because one failed",
    }


def test_what_is_hopeless_is_so_through_any_number_of_stages_and_told_once() -> None:
    chain = [ONE]
    for number in range(3):
        chain.append(Named(f"link {number}", (chain[-1],)))
    end = Named("end", (chain[-1], TWO))
    graph = Graph([*chain, TWO, end])
    begin_all(graph)
    told = graph.fail(ONE, "no luck")
    assert told == [*zip(chain[1:], chain[:-1], strict=True), (end, chain[-1])]
    assert graph.outcome.failed["end"] == "end: not run, because link 2 failed"
    assert graph.fail(TWO, "nor here") == []
    assert graph.settled


class Eased(Named):
    """Needs nothing, and is spared work by a stage that it follows."""

    @property
    def needs(self) -> tuple[Stage, ...]:
        return ()

    @property
    def follows(self) -> tuple[Stage, ...]:
        return self.after


def test_a_stage_comes_after_one_that_spares_it_work() -> None:
    eased = Eased("eased", (ONE,))
    graph = Graph([eased, ONE])
    assert begin_all(graph) == ["one"]
    graph.finish(ONE)
    assert begin_all(graph) == ["eased"]
    failing = Graph([eased, ONE])
    assert failing.begin() is ONE
    assert failing.fail(ONE, "no luck") == [(eased, ONE)]
    assert begin_all(Graph([eased])) == ["eased"]


def test_nothing_to_do_is_settled() -> None:
    graph = Graph([])
    assert graph.settled
    assert graph.begin() is None


class Counted(Named):
    """Counts how often its needs are asked for."""

    asked: ClassVar[int] = 0

    @property
    def needs(self) -> tuple[Stage, ...]:
        Counted.asked += 1
        return self.after


@pytest.mark.parametrize("fails", [False, True])
def test_twenty_thousand_stages_take_time_by_their_edges(fails: bool) -> None:
    """Trainings that share a source, each with a tail of stages: no rescan of those that wait."""
    Counted.asked = 0
    source = Counted("source")
    stages: list[Named] = [source]
    for run in range(2_000):
        train = Counted(f"train {run}", (source,))
        images = Counted(f"images {run}", (train,))
        scores = [Counted(f"score {run} {n}", (images, source)) for n in range(8)]
        stages += [train, images, *scores]
    chain = Counted("chain 0", (source,))
    for link in range(1, 2_000):
        stages.append(chain)
        chain = Counted(f"chain {link}", (chain,))
    stages.append(chain)
    assert len(stages) > 20_000
    began = time.process_time()
    graph = Graph(stages)
    assert graph.begin() is source
    if fails:
        assert len(graph.fail(source, "no luck")) == len(stages) - 1
    else:
        graph.finish(source)
    while (stage := graph.begin()) is not None:
        graph.finish(stage)
    assert graph.settled
    assert len(graph.outcome.finished) + len(graph.outcome.failed) == len(stages)
    assert Counted.asked == len(stages)
    # Some 0.1 s; one look at every waiting stage for each that ends would be 2 * 10^8 looks.
    assert time.process_time() - began < 5
