"""A stage is a file of the store, and what the file says is not believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.experiment.prepare import Experiment, prepare
from bench.spec.model import parse_spec
from bench.stages.described import describe, read_stage
from bench.stages.score import ScoreStage
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.errors import UserError
from trainers.sealed import seal_record


@pytest.fixture(scope="module")
def experiment(tiny_experiment: Callable[[], dict[str, Any]]) -> Experiment:
    raw = tiny_experiment()
    raw["train"]["gradient_checkpointing"] = True  # In no identity, and in no dump of a run.
    raw["objectives"]["csft"] = {"objective": {"name": "csft"}}
    return prepare(parse_spec(raw, "test"))


@pytest.fixture
def store(experiment: Experiment, tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    describe(experiment.stages(), made)
    return made


def test_every_stage_comes_back_as_it_was(experiment: Experiment, store: Store) -> None:
    for stage in experiment.stages():
        found, folder = read_stage(stage.id[:16], store)
        assert found == stage
        assert found.id == stage.id
        assert folder == Path.cwd()
    trained = [stage for stage in experiment.stages() if isinstance(stage, TrainStage)]
    assert all(
        found.config.gradient_checkpointing
        for found in (read_stage(stage.id, store)[0] for stage in trained)
        if isinstance(found, TrainStage)
    )


def first(experiment: Experiment, kind: type) -> Any:
    return next(stage for stage in experiment.stages() if isinstance(stage, kind))


def forge(store: Store, identity: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a description, and seal it anew, as one who means harm would."""
    path = store.root / "stages" / f"{identity[:16]}.json"
    said = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}
    change(said)
    path.write_text(json.dumps(seal_record(said)))


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["fields"]["config"].update(steps=5),
        lambda said: said.update(id="0" * 64),
        lambda said: said.update(kind="os.system"),
        lambda said: said.update(kind=[]),
        lambda said: said["fields"].pop("base"),
        lambda said: said.update(fields=3),
        lambda said: said["fields"].update(encode=said["id"]),
    ],
)
def test_what_is_not_the_stage_of_its_id_is_refused(
    experiment: Experiment, store: Store, change: Callable[[dict[str, Any]], object]
) -> None:
    stage = first(experiment, TrainStage)
    forge(store, stage.id, change)
    with pytest.raises(UserError, match="delete it, and run") as caught:
        read_stage(stage.id, store)
    assert "\n" not in str(caught.value)


def test_a_plug_in_that_is_not_installed_is_told_of(experiment: Experiment, store: Store) -> None:
    stage = first(experiment, TrainStage)
    forge(store, stage.id, lambda said: said["fields"]["config"]["objective"].update(name="os:x"))
    with pytest.raises(UserError, match="unknown objective 'os:x'"):
        read_stage(stage.id, store)


def test_damage_is_told(experiment: Experiment, store: Store) -> None:
    stage = first(experiment, ScoreStage)
    path = store.root / "stages" / f"{stage.id[:16]}.json"
    path.write_text(path.read_text().replace('"turn": 0', '"turn": 1'))
    with pytest.raises(UserError, match="changed since it was written"):
        read_stage(stage.id, store)


@pytest.mark.parametrize("identity", ["", "../../x", "0" * 15, "A" * 16, "0" * 65])
def test_an_id_that_is_none(store: Store, identity: str) -> None:
    with pytest.raises(UserError, match="expected 16 to 64 hex digits"):
        read_stage(identity, store)


def test_a_stage_that_nobody_described(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stage 0000000000000000 is described"):
        read_stage("0" * 16, Store(tmp_path))


def test_another_model_in_the_place_of_the_planned_one_is_refused(
    experiment: Experiment, store: Store, tmp_path: Path
) -> None:
    stage = first(experiment, TrainStage)
    other = tmp_path / "model"
    other.mkdir()
    for path in stage.base.rglob("*"):
        if path.is_file():
            target = other / path.relative_to(stage.base)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    forge(store, stage.id, lambda said: said["fields"].update(base=str(other)))
    read_stage(stage.id, store)[0].verify_inputs()  # The same bytes elsewhere are the same model.
    changed = next(other.rglob("*.safetensors"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x00")
    other.rename(tmp_path / "changed")
    forge(store, stage.id, lambda said: said["fields"].update(base=str(tmp_path / "changed")))
    with pytest.raises(UserError, match="is not the model that was planned with"):
        read_stage(stage.id, store)[0].verify_inputs()


def test_nothing_secret_is_described(
    tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    raw = tiny_experiment() | {"launch": {"slurm": {"all": {"account": "secret-account"}}}}
    experiment = prepare(parse_spec(raw, "test"))
    store = Store(tmp_path)
    describe(experiment.stages(), store)
    told = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    told += json.dumps(experiment.spec.model_dump(mode="json"))
    assert "secret" not in told


def test_descriptions_are_written_once(experiment: Experiment, store: Store) -> None:
    paths = sorted((store.root / "stages").iterdir())
    before = [path.stat().st_mtime_ns for path in paths]
    describe(experiment.stages(), store)
    assert [path.stat().st_mtime_ns for path in paths] == before
