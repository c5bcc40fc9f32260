"""A result folder knows whose results it holds, and is not written over by another spec."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli import run
from bench.experiment.collect import make_manifest, make_protocol
from bench.experiment.folder import check_folder, up_to_date
from bench.experiment.prepare import Experiment, prepare
from bench.results.files import MANIFEST, PROTOCOL, SCHEMA, SCORES, read_manifest, write_results
from bench.spec.model import override, parse_spec
from bench.stages.store import Store
from trainers.errors import UserError

Make = Callable[..., Experiment]


@pytest.fixture
def make(tiny: dict[str, Any]) -> Make:
    """The tiny experiment with dotted keys of its spec changed."""

    def experiment(changes: Mapping[str, Any] | None = None) -> Experiment:
        return prepare(parse_spec(override(tiny, dict(changes or {})), "tiny"))

    return experiment


def write(folder: Path, experiment: Experiment) -> None:
    """Results of an experiment, with one score for each of its runs."""
    runs = [config.run_id() for arm in experiment.matrix.arms for config in arm.configs.values()]
    scores = pa.table({"run_id": [experiment.sets[0].images.base_sha256, *runs]})
    manifest = make_manifest(experiment, Store(folder / "store"))
    write_results(folder, make_protocol(experiment), scores, manifest)


@pytest.fixture
def folder(tmp_path: Path, make: Make) -> Path:
    """Results of the tiny experiment as it is."""
    write(tmp_path / "tiny", make())
    return tmp_path / "tiny"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": [0, 1, 2]}, "seeds is [0, 1] there and [0, 1, 2] here"),
        ({"train.objective.beta": 50}, "train.objective.beta is 5000 there and 50 here"),
        ({"title": "Another"}, 'title is "A tiny experiment" there and "Another" here'),
        ({"generate.seed": 5}, "generate.seed is 0 there and 5 here"),
        ({"scoring.dtype": "bfloat16"}, 'scoring.dtype is null there and "bfloat16" here'),
        ({"train.ema": {"decay": 0.5}}, 'train.ema is not set there and {"decay": 0.5} here'),
        (
            {"train.steps": 5, "train.batch_size": 5, "prompt_limit": 5, "primary": "oracle"},
            "train.steps is 4 there and 5 here; train.batch_size is 4 there and 5 here; "
            "prompt_limit is 6 there and 5 here",
        ),
    ],
)
def test_another_spec_is_refused(
    folder: Path, make: Make, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match="holds results of another spec") as caught:
        check_folder(folder, make(changes))
    said = str(caught.value)
    assert f"({told})" in said
    assert said.endswith("give this one another name (--set name=...) or another --out")
    assert "\n" not in said


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoding.batch_size": 3, "training.checkpoint_every": 3, "quick": {"seeds": [0]}},
        {"scoring": {"device": "cuda", "batch_size": 1}, "cost.pair": 1.0},
        {"generate.batch_size": 1, "generate.device": "cuda"},
    ],
)
def test_where_and_how_fast_it_runs_is_no_other_spec(
    folder: Path, make: Make, changes: dict[str, Any]
) -> None:
    check_folder(folder, make(changes))


def test_a_folder_without_scores_is_free(folder: Path, make: Make) -> None:
    """As one that was left before its first results."""
    (folder / SCORES).unlink()
    check_folder(folder, make({"seeds": [5]}))


@pytest.mark.parametrize("schema", [None, 1])
def test_without_a_manifest_of_today_protocol_and_runs_have_to_show_it(
    folder: Path, make: Make, schema: int | None
) -> None:
    manifest = folder / MANIFEST
    if schema is None:
        manifest.unlink()
    else:
        manifest.write_text(
            manifest.read_text().replace(f'"schema": {SCHEMA}', f'"schema": {schema}')
        )
    check_folder(folder, make())
    # Another beta is in no protocol: only the runs differ.
    for changes in ({"prompt_limit": 5}, {"train.objective.beta": 50}):
        with pytest.raises(UserError, match=r"the manifest does not show it: .*manifest\.json"):
            check_folder(folder, make(changes))
    (folder / PROTOCOL).unlink()
    with pytest.raises(UserError, match="the manifest does not show it"):
        check_folder(folder, make())


def test_the_job_is_refused_before_it_begins(
    folder: Path,
    tiny: dict[str, Any],
    write_spec: Callable[[Mapping[str, Any]], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(folder)
    spec, out = write_spec(tiny), folder.parent
    for command in (["--seeds", "0"], ["--set", "prompt_limit=5"], ["--seeds", "0", "--collect"]):
        assert run(["ablate", spec, "--out", str(out), *command]) == 1
        assert capsys.readouterr().err.startswith(f"bench: {folder} holds results of another spec")
    assert files(folder) == before
    assert not (out / "store").exists()


def test_a_manifest_is_out_of_date_when_it_says_something_else(folder: Path, make: Make) -> None:
    store = Store(folder.parent / "store")
    assert up_to_date(folder, make(), store)
    assert not up_to_date(folder, make({"cost.pair": 1.0}), store)
    assert not up_to_date(folder.parent, make(), store)
    stage = make().stages()[-1]
    with store.lock(stage.kind, stage.id):
        store.record(stage.kind, stage.id, {}, 0)
    assert not up_to_date(folder, make(), store), "a stage that it calls missing is done"
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace(f'"schema": {SCHEMA}', '"schema": 1'))
    assert not up_to_date(folder, make(), Store(folder / "none"))


def test_a_manifest_keeps_what_was_cleared_away(folder: Path, make: Make) -> None:
    """It says of a network that is gone when and from what it was made."""
    manifest, scores = read_manifest(folder), pq.read_table(folder / SCORES)
    stages = tuple(stage.model_copy(update={"state": "done"}) for stage in manifest.stages)
    manifest = manifest.model_copy(update={"stages": stages})
    write_results(folder, make_protocol(make()), scores, manifest)
    assert {stage.state for stage in read_manifest(folder).stages} == {"done"}
    assert up_to_date(folder, make(), Store(folder / "none"))


def test_no_results_are_written_into_the_store(tmp_path: Path, make: Make) -> None:
    with pytest.raises(UserError, match=r"is where the store lies, .* another name"):
        check_folder(tmp_path / "store", make({"name": "store"}))


def test_an_out_that_is_a_file_is_told_before_the_work(
    tmp_path: Path,
    tiny: dict[str, Any],
    write_spec: Callable[[Mapping[str, Any]], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(["ablate", write_spec(tiny), "--out", str(tmp_path / "file")]) == 1
    told = capsys.readouterr().err
    assert told.endswith(
        "(not a directory): name a folder, or move away the file that is in its place, and run "
        "the same command again\n"
    )
    assert told.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
