"""What is committed is what it says it is."""

from pathlib import Path

import pytest

from bench.assets import differing, mini_folder
from bench.experiment import prepare
from bench.results import stale
from bench.spec import load_spec, shipped

ROOT = Path(__file__).parents[2]
RESULTS = sorted(path.parent for path in (ROOT / "results").rglob("plan.json"))
SPECS = [*shipped(), *(str(p) for p in sorted((ROOT / "docs").rglob("*.yaml")))]


def test_there_are_committed_results() -> None:
    assert RESULTS


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_every_committed_table_is_what_its_scores_give(folder: Path) -> None:
    assert stale(folder) == []


def test_shipped_weights_are_the_recorded_ones_and_small() -> None:
    assert differing(mini_folder()) == []
    files = [path for path in mini_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".parquet", ""}


@pytest.mark.parametrize("source", SPECS)
def test_every_spec_that_is_committed_can_be_prepared(source: str) -> None:
    experiment = prepare(load_spec(source))
    assert len(experiment.matrix.arms) >= 2
    if experiment.spec.quick:
        assert len(prepare(load_spec(source, quick=True)).prompts.items) > 0
