"""``steps.parquet`` says what the logs say, of every run that is done."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from bench.experiment import logs
from bench.experiment.logs import POINTS, collect_scales, collect_steps
from bench.experiment.prepare import Experiment
from bench.stages.store import Store
from trainers.steps import DECILES, EVENT, SCALARS

Finished = Callable[..., tuple[Experiment, Store, pa.Table]]


def logged(experiment: Experiment, store: Store) -> list[tuple[str, int | None, dict[str, Any]]]:
    return [
        (entry.arm, entry.seed, json.loads(line))
        for entry in experiment.sets
        if entry.images.train is not None
        for line in (entry.images.train.output(store) / "metrics.jsonl").read_text().splitlines()
    ]


def test_there_is_a_row_for_each_arm_seed_and_step_as_it_was_logged(finished: Finished) -> None:
    experiment, store, _ = finished()
    table = collect_steps(experiment, store, None)
    assert table is not None
    said = logged(experiment, store)
    assert len(said) == 4 * 2 * 4, "arms, seeds and steps"
    for row, (arm, seed, line) in zip(table.to_pylist(), said, strict=True):
        assert (row["arm"], row["seed"], row["step"]) == (arm, seed, line["step"])
        for name, key in (SCALARS | DECILES).items():
            assert row[name] == line[key]
        assert row["figures/spread"] == 0.75
        acted = arm in ("DPO+A", "DPO+A+B") and line["step"] % 2 == 0
        assert row[EVENT] == ("update" if acted else None)


def test_a_run_whose_log_was_cleared_away_keeps_the_rows_it_had(finished: Finished) -> None:
    experiment, store, _ = finished()
    whole = collect_steps(experiment, store, None)
    gone = experiment.sets[2].images.train
    assert gone is not None and whole is not None
    shutil.rmtree(gone.output(store))
    again = collect_steps(experiment, Store(store.root), whole)
    assert again is not None
    order = [("arm", "ascending"), ("seed", "ascending"), ("step", "ascending")]
    assert again.sort_by(order) == whole.sort_by(order)
    rest = collect_steps(experiment, Store(store.root), None)
    assert rest is not None and len(rest) == len(whole) - gone.units


def test_without_any_log_there_is_no_table(finished: Finished) -> None:
    experiment, store, _ = finished()
    shutil.rmtree(store.root / "train")
    assert collect_steps(experiment, Store(store.root), None) is None


def test_of_too_many_steps_every_nth_is_kept_and_all_that_the_reference_did(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store, _ = finished({"train.steps": 12})
    monkeypatch.setattr(logs, "MOST", 20)
    table = collect_steps(experiment, store, None)
    assert table is not None
    every = 5  # 4 arms, 2 seeds and 12 steps over 20, rounded up.
    steps = {
        arm: {row["step"] for row in table.to_pylist() if row["arm"] == arm}
        for arm in ("DPO", "DPO+A")
    }
    assert steps["DPO"] == {every, 2 * every, 12}
    assert steps["DPO+A"] == {every, *range(2, 13, 2)}


def test_scales_are_those_that_training_uses(finished: Finished) -> None:
    experiment, _, _ = finished()
    rows = collect_scales(experiment).to_pylist()
    arms = {arm.name for arm in experiment.matrix.arms}
    assert len(rows) == POINTS * len(arms)
    flat = [row["scale"] for row in rows if row["arm"] == "DPO+A"]
    assert flat == [1.0] * POINTS
    scaled = [row for row in rows if row["arm"] == "DPO+B"]
    assert [row["timestep"] for row in scaled][:: POINTS - 1] == [0, 999]
    inverse = [row["snr"] ** -0.5 for row in scaled]
    low, high = inverse[0], inverse[-1]
    expected = [1 + (value - low) / (high - low) for value in inverse]
    assert [row["scale"] for row in scaled] == pytest.approx(expected, abs=1e-6)
