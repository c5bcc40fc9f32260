"""Time from measured steps: scaled, listed by device, or not known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.assets import model_folder
from bench.cli import run
from bench.estimate.measure import measure, pair_seconds
from bench.estimate.plan import arm_configs, budget
from bench.estimate.rates import Rate, Work, recorded, times, unknown
from bench.spec.model import Training, load_spec
from trainers.backbones import BACKBONES
from trainers.errors import UserError
from trainers.metrics import StepMetrics


def rate(part: Any, device: str, seconds: float, **of: Any) -> Rate:
    return Rate(part=part, of=of, device=device, seconds=seconds, source=f"{device} {part}")


def test_hours_are_units_times_seconds_for_each_device() -> None:
    """7,200 pairs of 2 s are 4 hours; a device that knows one arm of two counts that one alone."""
    works = [Work("training", "training X", 7200, {"arm": "X", "model": "m"}),
             Work("training", "training Y", 3600, {"arm": "Y", "model": "m"}),
             Work("generation", "generation", 5, {"model": "m"})]  # fmt: skip
    rates = [
        rate("training", "a", 2.0, model="m"), rate("training", "b", 1.0, arm="Y"),
        rate("training", "a", 9.0, arm="X"), rate("training", "c", 1.0, model="other"),
    ]  # fmt: skip
    found = [(t.device, t.units, t.hours, t.sources) for t in times(works, rates)]
    assert found == [("a", 10_800, 6.0, ("a training",)), ("b", 3600, 1.0, ("b training",))]
    assert unknown(works, rates) == ["generation"]
    assert unknown(works, []) == ["training X", "training Y", "generation"]


def test_time_follows_the_passes_of_an_objective() -> None:
    """A rate of 8 passes, 2 s: SFT's 3 take 0.75 s. A rate that names none holds as it is."""
    work = Work("training", "training X", 3600, {"model": "m"}, passes=3)
    known = rate("training", "a", 2.0, model="m").model_copy(update={"passes": 8})
    (found,) = times([work], [known])
    assert found.hours == 0.75
    assert found.sources == ("a training, 3 passes of the network for its 8",)
    (found,) = times([work], [rate("training", "a", 2.0, model="m")])
    assert (found.hours, found.sources) == (2.0, ("a training",))


def test_a_plan_counts_the_passes_of_every_arm() -> None:
    """SD 1.5 by the recorded A100, by eighths of DPO; SDPO over parts runs all forwards twice."""
    spec = load_spec("paper-sd15")

    def hours(**changes: Any) -> float:
        train = spec.train | changes
        plan = budget(spec.model_copy(update={"train": train, "components": {}, "controls": {},
                                              "objectives": {"X": {}}}))  # fmt: skip
        return float(next(t["hours"] for t in plan["time"] if t["device"] == "A100"))

    dpo = hours()
    assert hours(objective={"name": "sft"}) == pytest.approx(3 / 8 * dpo)
    assert hours(objective={"name": "mapo"}) == pytest.approx(6 / 8 * dpo)
    assert hours(objective={"name": "kto"}, accumulation=1) == pytest.approx(4 / 8 * dpo)
    assert hours(safeguard={"name": "sdpo"}) == pytest.approx(12 / 8 * dpo)


def test_the_recorded_rates_are_what_their_sources_say() -> None:
    """2,000 steps of 2,048 pairs: hours of all GPUs by pairs."""
    pairs = 2000 * 2048
    hours = {
        "stable-diffusion-v1-5": {"A100": 240.0, "a GPU without a name": 24.0 * 16},
        "stable-diffusion-xl-base-1.0": {"A100": 2560.0, "a GPU without a name": 300.0 * 16},
    }
    for row in recorded():
        if row.of["runs_on"] == "cuda" and (known := hours.get(str(row.of["model"]))):
            expected = known.pop(row.device) * 3600 / pairs
            assert row.seconds == pytest.approx(expected, rel=1e-3)
    assert hours == {"stable-diffusion-v1-5": {}, "stable-diffusion-xl-base-1.0": {}}


def test_a_recipe_is_planned_by_what_was_recorded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """45 runs as long as the recorded ones; of images and scores nobody has told.

    But for the reference's two passes of eight in six of them: its errors are computed once for
    each seed's DPO and its controls of beta and of the rate.
    """
    plan = budget(load_spec("paper-sd15"), devices=16)
    hours = {time["device"]: time["hours"] for time in plan["time"]}
    assert hours == {
        "A100": pytest.approx(43.5 * 240, rel=1e-3),
        "a GPU without a name": pytest.approx(43.5 * 384, rel=1e-3),
    }
    assert [time["wall_hours"] * 16 for time in plan["time"]] == pytest.approx([*hours.values()])
    assert plan["not_known"][:3] == ["encoding", "generation", "scoring by pickscore"]
    assert plan["total_hours"] is None
    monkeypatch.setenv("COLUMNS", "400")
    assert run(["plan", "paper-sd15", "--devices", "16"]) == 0
    shown = capsys.readouterr().out
    assert "training: 16,704 h, 1,044 h by 16 devices, on a GPU without a name" in shown
    assert "time not known of encoding, generation, scoring by pickscore" in shown


def test_no_gpu_is_planned_by_a_cpu_or_full_weights_by_an_adapter() -> None:
    """LoRA was measured on a CPU only."""
    spec = load_spec("sd15-lora-1gpu")
    assert budget(spec)["time"] == []
    on_cpu = spec.model_copy(update={"training": Training(device="cpu")})
    (time,) = budget(on_cpu)["time"]
    assert (time["device"], time["units"]) == ("one thread of an x86-64 CPU", 12 * 500 * 64)
    assert time["hours"] == pytest.approx(12 * 500 * 64 * 60 / 3600)


TINY = """
extends: mini
name: tiny
seeds: [0]
components: {}
train.batch_size: 4
train.accumulation: 2
train.reference: {name: hard-copy, tau: 4, delta: 0.005, subset: 4}
generate: {steps: 2, batch_size: 2}
encoding: {batch_size: 2}
rewards: [oracle, mini-clip, pickscore]
"""


def test_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part of a small spec, on this machine; a reward without weights is not known."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    assert run(["plan", str(path), "--measure", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    found = {time["part"]: time for time in plan["time"]}
    assert list(found) == ["encoding", "training", "generation", "scoring"]
    assert {time["device"] for time in found.values()} == {"this machine"}
    assert found["scoring"]["units"] == 2 * plan["images"]
    assert (plan["not_known"], plan["total_hours"]) == (["scoring by pickscore"], None)
    # A step of the miniature takes milliseconds to seconds, on whatever machine.
    assert 1e-4 < found["training"]["hours"] * 3600 / found["training"]["units"] < 10
    path.write_text(TINY.replace(", pickscore", ""))
    assert run(["plan", str(path), "--measure", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["total_hours"] == pytest.approx(sum(time["hours"] for time in whole["time"]))
    assert whole["not_known"] == []


def test_a_pair_of_a_measured_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of 2 pairs takes 8 s, and 14 where the gate runs on its 2 images.

    So 4 s a pair, and 3 s for each of the 4 images that the gate of the whole batch measures at
    every fourth step: 3 s a step of 4 pairs.
    """
    folder = model_folder("mini-sd")
    spec = load_spec("mini")
    reference = {"name": "hard-copy", "tau": 4, "delta": 0.005, "subset": 4}
    train = spec.train | {"batch_size": 4, "accumulation": 2, "reference": reference}
    config = arm_configs(spec.model_copy(update={"train": train, "components": {}}))["DPO"]
    backbone = BACKBONES.get("stable-diffusion")(folder)
    image = backbone.encode_images(torch.zeros(1, 3, 64, 64))
    measured: list[bool] = []

    def clock(step: Callable[[], StepMetrics], device: str) -> float:
        measured.append(step().divergence is not None)
        return 14.0 if measured[-1] else 8.0

    monkeypatch.setattr("bench.estimate.measure._time", clock)
    seconds = pair_seconds(config, backbone, image, backbone.encode_prompts([""]), 1, "cpu")
    assert seconds == pytest.approx(8 / 2 + 3 / 4)
    assert measured == [False, True]


def test_measuring_needs_the_model() -> None:
    with pytest.raises(UserError, match="no model 'models/stable-diffusion-v1-5'"):
        measure(load_spec("paper-sd15"))
