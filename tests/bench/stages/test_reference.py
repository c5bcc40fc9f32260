"""Errors of the pretrained network as an artefact: made once, taken by several runs, added to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.experiment.prepare import Experiment, prepare
from bench.experiment.run import missing_stages
from bench.launch.graph import Graph
from bench.spec.model import Cost, override, parse_spec
from bench.stages import reference
from bench.stages.base import Stage
from bench.stages.reference import ReferenceStage, read_errors
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.errors import UserError
from trainers.files import canonical_json

Make = Callable[..., Experiment]
FOUR: dict[str, Any] = {
    "controls": {
        "weak": {"of": "DPO", "set": {"objective.beta": 50}},
        "IPO": {"of": "DPO", "set": {"objective": {"name": "ipo"}}},
        "fast": {"of": "DPO", "set": {"optimizer.lr": 1e-3}},
    }
}
OFF = {"training.share_reference": False}
KINDS = ("encode", "reference", "train")


class Interrupted(Exception):
    """Stands for anything that ends a process."""


@pytest.fixture(scope="module")
def make(tiny_experiment: Callable[[], dict[str, Any]]) -> Make:
    """DPO, alone or with A, and three controls; 4 steps of 4 pairs; dotted keys changed."""
    made: dict[str, Experiment] = {}

    def experiment(*changes: dict[str, Any]) -> Experiment:
        raw = override(tiny_experiment(), {"train.data": {}, "training": {}, "seeds": [0]})
        raw = override(raw, {"train.data.subset": 24, "components": {}} | FOUR)
        for change in changes:
            raw = override(raw, change)
        key = canonical_json(raw)
        if key not in made:
            made[key] = prepare(parse_spec(raw, "tiny"))
        return made[key]

    return experiment


def missing(experiment: Experiment, store: Store) -> list[Stage]:
    """Up to the training."""
    return [stage for stage in missing_stages(experiment, store) if stage.kind in KINDS]


def execute(stages: list[Stage], store: Store) -> None:
    graph = Graph(stages)
    while (stage := graph.begin()) is not None:
        store.forget(stage.id)
        stage.execute(store, lambda units: None)
        graph.finish(stage)
    assert graph.settled


def digests(experiment: Experiment, store: Store) -> dict[str, str]:
    """What each run left: its network, log and record, by its identity."""
    found: dict[str, str] = {}
    for stage in experiment.stages():
        if isinstance(stage, TrainStage):
            status = stage.done(store)
            assert status is not None, stage.label
            found[stage.id] = status.digest
    return found


def sources(stages: list[Stage]) -> list[ReferenceStage]:
    return [stage for stage in stages if isinstance(stage, ReferenceStage)]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The positions that a stage began at and was to end at, of those that computed something."""
    seen: list[tuple[int, int]] = []
    inner = reference.reference_errors

    def spy(*run: Any) -> Any:
        seen.append(run[-2:])
        return inner(*run)

    monkeypatch.setattr(reference, "reference_errors", spy)
    return seen


A = {
    "components.A": {
        "label": "update",
        "set": {"reference": {"name": "hard-copy", "tau": 2, "delta": 0.005}},
    }
}


@pytest.mark.parametrize(
    "changes",
    [A, {"train.accumulation": 2}],
    ids=["A", "parts"],
)
def test_a_matrix_leaves_the_same_bytes_with_it_and_without(
    changes: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    """Of every run the network, the log and the record; one stage comes before all of them."""
    on, off = Store(tmp_path / "on"), Store(tmp_path / "off")
    stages = missing(make(changes), on)
    assert [stage.kind for stage in stages[:3]] == ["encode", "reference", "train"]
    (source,) = sources(stages)
    runs = [stage for stage in stages if isinstance(stage, TrainStage)]
    assert all(run.errors is source and source in run.follows for run in runs)
    execute(stages, on)
    plain = missing(make(changes, OFF), off)
    assert [stage.id for stage in plain] == [s.id for s in stages if s is not source]
    execute(plain, off)
    assert digests(make(changes), on) == digests(make(changes), off)
    assert missing(make(changes), on) == []
    assert on.verify() == len(stages)
    assert on.verify_pools() > 0


def test_two_processes_take_what_two_processes_computed(make: Make, tmp_path: Path) -> None:
    """Parts of a batch by turns; each then looks at its own rows. One of two runs is compared."""
    control = {"weak": {"of": "DPO", "set": {"objective.beta": 50}}}
    two = {"training.processes": 2, "train.steps": 2, "controls": control}
    on, off = Store(tmp_path / "on"), Store(tmp_path / "off")
    stages, plain = missing(make(two), on)[:3], missing(make(two, OFF), off)[:2]
    assert [stage.kind for stage in stages] == ["encode", "reference", "train"]
    execute(stages, on)
    execute(plain, off)
    left = [stage.done(store) for stage, store in ((stages[2], on), (plain[1], off))]
    assert left[0] is not None
    assert left[1] is not None
    assert left[0].outputs == left[1].outputs


def test_one_run_alone_computes_its_own(make: Make, tmp_path: Path) -> None:
    """A stage would take as long as what it spares; so would one for two laws, or for A's start."""
    store = Store(tmp_path)
    alone: list[dict[str, Any]] = [
        {"controls": {}},
        {"controls": {}} | A,
        {"controls": {"B": {"of": "DPO", "set": {"timesteps.law": {"name": "discounted"}}}}},
        {"controls": {"SFT": {"of": "DPO", "set": {"objective": {"name": "sft"}}}}},
        {"controls": {"same": {"of": "DPO", "set": {"objective.beta": 5000}}}},
        {"controls": {"swap": {"of": "DPO", "set": {"data.swap_labels": True}}}},
        {"controls": {}, "seeds": [0, 1]},
    ]
    for changes in alone:
        stages = missing(make(changes), store)
        assert sources(stages) == [], changes
        assert all(stage.errors is None for stage in stages if isinstance(stage, TrainStage))


def test_each_seed_and_each_law_has_its_own(make: Make, tmp_path: Path) -> None:
    b = {"timesteps.law": {"name": "discounted"}}
    changes = {
        "seeds": [0, 1],
        "controls.B": {"of": "DPO", "set": b},
        "controls.B fast": {"of": "fast", "set": b},
    }
    found = sources(missing(make(changes), Store(tmp_path)))
    assert sorted(source.label for source in found) == [
        "reference errors 2 of seed 0", "reference errors 2 of seed 1",
        "reference errors of seed 0", "reference errors of seed 1",
    ]  # fmt: skip
    assert len({source.id for source in found}) == 4


def test_a_longer_run_adds_to_the_errors_of_a_shorter(
    make: Make, tmp_path: Path, begun: list[tuple[int, int]]
) -> None:
    """And a shorter one takes of them: positions that are there are computed by nobody again."""
    store = Store(tmp_path / "store")
    for steps in (3, 5, 4):
        execute(missing(make({"train.steps": steps}), store), store)
    assert begun == [(0, 12), (12, 20)]
    whole = Store(tmp_path / "whole")
    execute(missing(make({"train.steps": 5}), whole), whole)
    for steps in (3, 4, 5):
        (source,) = sources(missing(make({"train.steps": steps}), Store(tmp_path / "none")))
        (longest,) = sources(missing(make({"train.steps": 5}), Store(tmp_path / "none")))
        expected = read_errors(longest.output(whole))[:, : 4 * steps]
        assert torch.equal(read_errors(source.output(store)), expected)
    assert digests(make({"train.steps": 5}), store) == digests(make({"train.steps": 5}), whole)


def test_an_interrupted_stage_goes_on_where_its_last_piece_ends(
    make: Make, tmp_path: Path, begun: list[tuple[int, int]]
) -> None:
    """With a piece for every two steps of four pairs."""
    changes = {"training.checkpoint_every": 2}
    stages, store = missing(make(changes), Store(tmp_path)), Store(tmp_path)
    encode, (source,) = stages[0], sources(stages)
    encode.execute(store, lambda units: None)
    reported: list[int] = []

    def stop(done: int) -> None:
        reported.append(done)
        if done == 12:
            raise Interrupted

    with pytest.raises(Interrupted):
        source.execute(store, stop)
    source.execute(store, reported.append)
    assert reported == [4, 8, 12, 12, 16]
    assert begun == [(0, 16), (8, 16)]
    other = Store(tmp_path / "other")
    execute(missing(make(OFF), other), other)
    execute(stages[2:], store)
    assert digests(make(changes), store) == digests(make(), other)


def test_a_piece_that_was_changed_is_told_and_made_again(
    make: Make, tmp_path: Path, begun: list[tuple[int, int]], capfd: pytest.CaptureFixture[str]
) -> None:
    store, changes = Store(tmp_path), {"training.checkpoint_every": 1, "train.steps": 2}
    execute(missing(make(changes), store)[:2], store)
    pieces = sorted(store.pool("reference").rglob("*.safetensors"))
    assert [int(piece.stem) for piece in pieces] == [0, 4]
    data = bytearray(pieces[1].read_bytes())
    data[-1] ^= 1
    pieces[1].write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        store.verify_pools()
    longer = sources(missing(make(changes | {"train.steps": 3}), store))
    longer[0].execute(store, lambda units: None)
    assert begun == [(0, 8), (4, 12)]
    assert f"{pieces[1]} is not what was written there" in capfd.readouterr().err
    assert store.verify_pools() > 0


def test_damaged_errors_are_never_learned_from(make: Make, tmp_path: Path) -> None:
    store = Store(tmp_path)
    stages = missing(make(), store)
    execute(stages[:2], store)
    path = stages[1].output(store) / reference.ERRORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"the store is damaged: .*errors\.safetensors was changed"):
        stages[2].execute(Store(tmp_path), lambda units: None)


def test_a_run_that_is_left_over_takes_the_errors_that_are_there(
    make: Make, tmp_path: Path
) -> None:
    """After an interruption, say; by itself it would not be worth a stage."""
    store = Store(tmp_path)
    execute(missing(make(), store)[:-1], store)
    (last,) = missing(make(), store)
    assert isinstance(last, TrainStage)
    assert last.errors is not None
    execute([last], store)
    (plain,) = missing(make(OFF), Store(tmp_path / "other"))[-1:]
    assert plain.id == last.id


def test_what_it_is_expected_to_take(make: Make, tmp_path: Path) -> None:
    """Two of the eight passes of a pair, once; and six of each run. A's reference is used after."""
    cost = Cost(pair=8, image=1, score=1, start=1)
    stages = missing(make(A), Store(tmp_path))
    seconds = {stage.label: stage.expected_seconds(cost) for stage in stages[1:]}
    assert seconds == {
        "reference errors of seed 0": 16 * 2, "training DPO seed 0": 16 * 6,
        "training DPO+A seed 0": 8 * 6 + 8 * 8, "training weak seed 0": 16 * 6,
        "training IPO seed 0": 16 * 6, "training fast seed 0": 16 * 6,
    }  # fmt: skip
    assert stages[1].units == 16
