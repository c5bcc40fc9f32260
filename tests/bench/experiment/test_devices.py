"""Devices are refused before any work begins, and GPUs are not crowded."""

from typing import Any

import pytest

from bench.experiment.devices import check_devices
from bench.experiment.prepare import prepare
from bench.experiment.run import default_workers
from bench.spec.model import Spec, load_spec, override, parse_spec
from trainers.errors import UserError


def mini(**changes: Any) -> Spec:
    return parse_spec(override(load_spec("mini").model_dump(), changes), "test")


def test_the_shipped_spec_runs_on_any_machine() -> None:
    check_devices(mini())


@pytest.mark.parametrize("section", ["encoding", "training", "generate", "scoring"])
@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(section: str, device: str) -> None:
    with pytest.raises(UserError, match=rf"{section}\.device: '{device}' cannot be used here"):
        check_devices(mini(**{f"{section}.device": device}))


def test_every_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.empty", lambda *shape, device: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_devices(mini(training={"device": "cuda", "processes": 2}))
    with pytest.raises(UserError, match="4 processes need a GPU each, and there are 2"):
        check_devices(mini(training={"device": "cuda", "processes": 4}))


def test_work_on_another_device_or_in_processes_of_its_own_is_not_doubled() -> None:
    assert default_workers(mini(**{"training.device": "cuda"})) == 1
    assert default_workers(mini(**{"scoring.device": "cuda"})) == 1
    assert default_workers(mini(**{"training.processes": 2})) == 1


def test_where_a_run_is_trained_is_no_part_of_it() -> None:
    here = prepare(mini())
    there = prepare(
        mini(**{"training": {"device": "cuda", "processes": 4}, "encoding.device": "cuda"})
    )
    assert [s.id for s in here.stages()] == [s.id for s in there.stages()]
