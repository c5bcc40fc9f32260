"""Trackers see what tables hold, and change nothing of a run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.metrics import StepMetrics
from trainers.tracking import check_trackers, run_name, tracked

METRICS = StepMetrics(
    step=3, loss=0.5, policy_winner=0.25, policy_loser=0.125, reference_winner=None,
    reference_loser=None, margin=-1.0, accuracy=0.75, divergence=0.01, reference_action="update",
    grad_norm=None, lr=1e-4, timestep_deciles=[1] * 10, decile_winners=[1] * 10,
    decile_losers=None, decile_policy_winner=[0.5] * 10, decile_policy_loser=None,
    decile_reference_winner=None, decile_reference_loser=None, decile_pairs=None,
    decile_correct=[0.25] * 10, figures={"spread": 2.0},
)  # fmt: skip


class Kept(GeneralTracker):  # type: ignore[misc]
    """Keeps what it is told."""

    name = "kept"
    requires_logging_directory = True
    seen: ClassVar[list[Any]] = []

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()
        self.seen.append((run_name, logging_dir))

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.seen.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if step == 13:
            raise ConnectionError("no\nnetwork")
        self.seen.append((step, values))

    def finish(self) -> None:
        self.seen.append("finished")


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "kept", Kept)
    Kept.seen.clear()
    yield Kept.seen


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "backbone": "stable-diffusion", "base_sha256": "0" * 64, "data_sha256": "1" * 64,
            "objective": {"name": "dpo", "beta": 5000}, "reference": {"name": "frozen"},
            "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
            "optimizer": {"lr": 1e-4}, "steps": 2, "batch_size": 1, "seed": 4,
        }
    )  # fmt: skip


def test_a_tracker_sees_the_columns_of_tables(
    config: TrainConfig, kept: list[Any], tmp_path: Path
) -> None:
    others: list[Any] = []
    with tracked(["kept"], config, tmp_path, lambda *step: others.append(step)) as track:
        track(3, METRICS)
    opened, settings, (step, values), finished = kept
    assert opened == (run_name(config), str(tmp_path))
    assert run_name(config) == f"dpo-frozen-seed4-{config.run_id()[:8]}"
    assert (settings["objective.beta"], settings["ema"]) == (5000, "None")
    expected = {
        "loss": 0.5, "error_winner": 0.25, "error_loser": 0.125, "margin": -1.0, "accuracy": 0.75,
        "divergence": 0.01, "reference_event": "update", "lr": 1e-4, "figures/spread": 2.0,
    }  # fmt: skip
    for name, value in {"count": 1, "winners": 1, "error_winner": 0.5, "correct": 0.25}.items():
        expected |= {f"decile_{name}/{place}": value for place in range(10)}
    assert (step, values) == (3, expected)
    assert others == [(3, METRICS)]
    assert finished == "finished"


def test_a_tracker_that_fails_is_named_in_one_line(
    config: TrainConfig, kept: list[Any], tmp_path: Path
) -> None:
    with (
        pytest.raises(UserError, match=r"tracker 'kept' failed \(no network\): mend") as caught,
        tracked(["kept"], config, tmp_path, lambda *_: None) as track,
    ):
        track(13, METRICS)
    assert "\n" not in str(caught.value)
    assert kept[-1] == "finished"


def test_unknown_trackers_are_refused_in_one_line() -> None:
    check_trackers(["kept"])
    with pytest.raises(UserError, match=r"log_with: expected some of aim, .*, got 'nonsense'"):
        check_trackers(["kept", "nonsense"])


def test_a_tracker_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(UserError, match="'wandb' needs a package that is not installed"):
        check_trackers(["wandb"])


def test_nothing_is_imported_until_a_tracker_is_asked_for() -> None:
    script = (
        "import sys\n"
        "import bench.stages.train\n"
        "from trainers.tracking import check_trackers\n"
        "check_trackers(())\n"
        "sys.exit('accelerate.tracking' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_tensorboard_reads_what_was_logged(config: TrainConfig, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    check_trackers(["tensorboard"])
    with tracked(["tensorboard"], config, tmp_path, lambda *_: None) as track:
        track(3, METRICS)
    found = reader.EventAccumulator(str(tmp_path / run_name(config))).Reload()
    (event,) = found.Scalars("decile_correct/9")
    assert (event.step, event.value) == (3, 0.25)
