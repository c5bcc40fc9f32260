"""GPUs of one machine are handed out to its workers."""

import pytest

from bench.experiment.devices import gpu_shares
from bench.experiment.run import default_workers
from bench.launch.devices import shares
from bench.spec.model import Spec, load_spec, override, parse_spec


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def spec(**changes: object) -> Spec:
    return parse_spec(override(load_spec("mini").model_dump(), changes), "test")


@pytest.mark.usefixtures("four")
def test_each_share_has_gpus_of_its_own() -> None:
    assert shares(1) == ["0", "1", "2", "3"]
    assert shares(2) == ["0,1", "2,3"]
    assert shares(3) == ["0,1,2"]
    assert shares(5) == []


@pytest.mark.usefixtures("four")
def test_what_this_process_may_see_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, 5,GPU-ab,1")
    assert shares(2) == ["7,5", "GPU-ab,1"]


@pytest.mark.usefixtures("four")
def test_runs_of_several_processes_take_as_many() -> None:
    assert gpu_shares(spec(**{"training.device": "cuda"})) == ["0", "1", "2", "3"]
    two = spec(**{"training.device": "cuda", "training.processes": 2})
    assert gpu_shares(two) == ["0,1", "2,3"]
    assert default_workers(two) == 2
    assert gpu_shares(spec(**{"training.processes": 2, "scoring.device": "cuda"})) == [
        "0", "1", "2", "3",
    ]  # fmt: skip


@pytest.mark.usefixtures("four")
def test_nothing_is_handed_out_where_none_is_asked_for_or_one_is_named() -> None:
    assert gpu_shares(spec()) == []
    assert gpu_shares(spec(**{"training.device": "cuda:1"})) == []
