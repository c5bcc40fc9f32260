"""What an experiment declares, and what is on record of its stages, in the words of a result."""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import bench
from bench.experiment.collect import collect, make_manifest, make_protocol
from bench.experiment.machine import git_state, without_credentials
from bench.experiment.prepare import Experiment, prepare
from bench.results.files import read_manifest, read_protocol, write_results
from bench.results.protocol import Mark
from bench.spec.model import parse_spec
from bench.stages.store import Store
from trainers.errors import UserError

LEARNT = ("mini-world/train",)


@pytest.fixture
def experiment(tiny: dict[str, Any]) -> Experiment:
    return prepare(parse_spec(tiny, "here"))


@pytest.mark.parametrize(
    ("labelled_by", "datasets", "expected"),
    [
        ((), (), ()),
        ((), ("other/test",), ()),
        ((), ("mini-world/train",), (Mark(kind="same-set", datasets=LEARNT),)),
        ((), ("mini-world/test",), (Mark(kind="same-source", datasets=LEARNT),)),
        (("mini-clip",), (), (Mark(kind="labelled"),)),
    ],
)
def test_marks_follow_from_what_a_reward_has_seen(
    tiny: dict[str, Any],
    labelled_by: tuple[str, ...],
    datasets: tuple[str, ...],
    expected: tuple[Mark, ...],
) -> None:
    tiny |= {"rewards": ["oracle", "mini-clip"], "labelled_by": labelled_by}
    experiment = prepare(parse_spec(tiny, "here"))
    prompts = dataclasses.replace(experiment.prompts, datasets=datasets)
    protocol = make_protocol(dataclasses.replace(experiment, prompts=prompts))
    marks = {reward.name: reward.marks for reward in protocol.rewards}
    assert marks == {"oracle": (), "mini-clip": expected}


def test_the_protocol_is_that_of_the_spec(experiment: Experiment) -> None:
    spec, protocol = experiment.spec, make_protocol(experiment)
    assert (protocol.title, protocol.label, protocol.primary) == (
        spec.title, spec.label, spec.primary,
    )  # fmt: skip
    assert protocol.bench == bench.__version__
    assert protocol.arms[0].seeds == (None,)
    assert {arm.name: arm.seeds for arm in protocol.arms[1:]} == {
        name: spec.seeds for name in ("DPO", "DPO+A", "DPO+B", "DPO+A+B")
    }
    assert [arm.seeds for arm in protocol.control] == [(0, 1, 2)] * 2
    assert protocol.prompts.ids == tuple(name for name, _ in experiment.prompts.items)
    images = protocol.images.model_dump()
    assert images.pop("per_prompt") == spec.generate.images_per_prompt
    assert images == spec.generate.model_dump(
        include={
            "sampler",
            "steps",
            "guidance",
            "eta",
            "height",
            "width",
            "seed",
            "dtype",
            "matmul",
        }
    )
    assert protocol.rewards[0].signature == experiment.cards["oracle"]["signature"]
    assert (protocol.pairs.data, protocol.pairs.kept) == (spec.data, experiment.pairs)
    assert protocol.statistics.model_dump() == {
        "alpha": 0.05, "gain": "DPO - base", "share": 0.2, "bound": None, "tie": 0.0,
    }  # fmt: skip


def test_nothing_scored_is_refused(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scores to put into a table"):
        collect(experiment, Store(tmp_path))


def test_protocol_and_manifest_are_read_as_they_were_written(
    experiment: Experiment, tmp_path: Path
) -> None:
    protocol, manifest = make_protocol(experiment), make_manifest(experiment, Store(tmp_path / "s"))
    assert {stage.state for stage in manifest.stages} == {"missing"}
    assert len(manifest.runs) == 4 * 2
    write_results(tmp_path / "r", protocol, pa.table({}), manifest)
    assert read_protocol(tmp_path / "r") == protocol
    assert read_manifest(tmp_path / "r") == manifest


def test_an_origin_is_recorded_without_credentials_and_a_path_not_at_all() -> None:
    assert without_credentials("https://me:secret@host.org/a/b.git") == "https://host.org/a/b.git"
    assert without_credentials("/home/me/b.git") is None
    assert without_credentials(None) is None


def test_uncommitted_changes_are_recorded_by_their_hash(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.org")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", ".")
    git("commit", "-m", "first")
    clean = git_state(tmp_path)
    assert clean is not None
    assert (clean.dirty, clean.patch_sha256, clean.origin) == (False, None, None)
    (tmp_path / "file").write_text("two")
    dirty = git_state(tmp_path)
    assert dirty is not None
    assert dirty.commit == clean.commit
    assert dirty.dirty
    assert len(dirty.patch_sha256 or "") == 64
    (tmp_path / "environment").mkdir()
    assert git_state(tmp_path / "environment") is None, "somebody's repository around it"


def test_a_manifest_tells_no_folder_of_the_machine(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["bench", "ablate", "mine.yaml", "--out", str(tmp_path / "runs"), "--out=/a/b/runs",
             "--set", "train.steps=2", "--set", "data=/a/b/pairs.parquet"]  # fmt: skip
    monkeypatch.setattr("sys.argv", given)
    assert make_manifest(experiment, Store(tmp_path)).command == (
        "bench", "ablate", "mine.yaml", "--out", "runs", "--out=runs", "--set", "train.steps=2",
        "--set", "data=pairs.parquet",
    )  # fmt: skip
