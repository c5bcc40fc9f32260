"""What a spec says of machines is checked before anything runs, and is in no dump."""

from typing import Any

import pytest

from bench.spec.launch import Launch
from bench.spec.model import load_spec, override, parse_spec
from trainers.errors import UserError


def launch(**settings: Any) -> Launch:
    raw = load_spec("mini").model_dump() | {"launch": settings}
    return parse_spec(raw, "test").launch


def test_a_kind_of_stage_has_what_all_have_but_for_what_it_says() -> None:
    slurm = launch(
        slurm={"all": {"partition": "gpu", "gpus": 1}, "score": {"gpus": 0}, "train": {"cpus": 8}}
    ).slurm
    assert (slurm.of("train").partition, slurm.of("train").gpus, slurm.of("train").cpus) == (
        "gpu", 1, 8,
    )  # fmt: skip
    assert (slurm.of("score").partition, slurm.of("score").gpus) == ("gpu", 0)
    assert slurm.of("encode") == slurm.all


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("12:00:00", 43200), ("2-00:30:00", 2 * 86400 + 1800), ("00:30:00", 1800), (43200, 43200)],
)
def test_times(value: Any, seconds: int) -> None:
    # Without quotes YAML reads 12:00:00 as a number of base 60.
    assert launch(slurm={"train": {"time": value}}).slurm.of("train").time == seconds


def test_a_time_from_the_command_line() -> None:
    spec = load_spec("mini", changes={"launch.slurm.train.time": "01:00:00"})
    assert spec.launch.slurm.of("train").time == 3600


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"slurm": {"train": {"time": "an hour"}}}, r"launch\.slurm\.train\.time: .*hours:minutes"),
        ({"slurm": {"train": {"time": 5}}}, r"launch\.slurm\.train\.time: .*60"),
        ({"slurm": {"train": {"partition": "gpu; rm -rf /"}}}, r"train\.partition"),
        ({"slurm": {"train": {"partition": "gpu\n#SBATCH"}}}, "control characters|partition"),
        ({"slurm": {"train": {"memory": "16 GB"}}}, r"train\.memory"),
        ({"slurm": {"train": {"options": {"output": "x"}}}}, "the launcher sets output itself"),
        ({"slurm": {"train": {"options": {"--gres": "gpu:1"}}}}, r"options"),
        ({"slurm": {"train": {"options": {"gres": "$(id)"}}}}, r"options\.gres"),
        ({"slurm": {"training": {}}}, "unknown key"),
        ({"ray": {"train": {"gpus": -1}}}, r"ray\.train\.gpus"),
        ({"ray": {"retries": True}}, r"ray\.retries"),
        ({"kubernetes": {}}, "unknown key"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        launch(**settings)
    assert "\n" not in str(caught.value)


def test_where_stages_run_is_in_no_manifest() -> None:
    raw = override(load_spec("mini").model_dump(), {"launch.slurm.all.account": "mine"})
    spec = parse_spec(raw, "test")
    assert spec.launch.slurm.all.account == "mine"
    assert spec.model_dump() == load_spec("mini").model_dump()
