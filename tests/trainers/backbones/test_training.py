"""The one trainer core on SDXL and on a flow model: nothing but the backbone's name changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainers.backbones import Backbone
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData
from trainers.metrics import StepMetrics
from trainers.record import METRICS, RECORD

NEW = ("stable-diffusion-xl", "stable-diffusion-3")
LN_2 = 0.6931471805599453
A = {"reference": {"name": "hard-copy", "tau": 2, "delta": 0.5, "subset": 2}}
B = {"timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}}}
FLOW_LAW = {"timesteps": {"law": {"name": "logit-normal"}, "scale": {"name": "constant"}}}

Run = Callable[..., Trainer]


class Interrupted(Exception):
    """Stands for anything that ends a process."""


@pytest.fixture(params=NEW)
def start(
    request: pytest.FixtureRequest,
    configure: Callable[..., TrainConfig],
    backbones: dict[str, Backbone],
    data: dict[str, PairData],
) -> Run:
    """A trainer of four steps at step 0, with any of its fields changed."""
    name = request.param

    def make(**changes: Any) -> Trainer:
        config = configure(**({"backbone": name, "steps": 4, "caption_dropout": 0.3} | changes))
        return Trainer(config, backbones[name], data[name])

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != RECORD
    }


def finished(trainer: Trainer, folder: Path) -> dict[str, bytes]:
    trainer.run(folder)
    return files(folder)


def test_first_step_is_ln_2_and_the_second_is_not(start: Run) -> None:
    """Policy and reference agree to the bit at first, whatever the scale of the reward."""
    trainer = start(**B)
    first, second = trainer.advance(), trainer.advance()
    assert first.loss == pytest.approx(LN_2, rel=1e-6)
    assert (first.margin, first.accuracy) == (0.0, 0.5)
    assert first.grad_norm > 0
    assert abs(second.loss - LN_2) > 1e-4


def test_errors_of_a_step_derived_again(start: Run) -> None:
    """Image by image, from the trainer's draws: mse of the target over C, H, W, one eps a pair."""
    trainer = start(caption_dropout=0.0)
    backbone, network = trainer.backbone, trainer.backbone.load_network()
    draws = trainer.stream.at(0, 2)
    timesteps = (draws.uniform * 1000).long()
    found = []
    for i in range(2):
        row, t, eps = draws.rows[i : i + 1], timesteps[i : i + 1], draws.noise[i : i + 1]
        condition = trainer.data.condition(row, torch.tensor([False]))
        for image, sample in zip(trainer.data.images(row), draws.posterior[:, i], strict=True):
            x = image.mean + image.std * sample
            with torch.no_grad():
                got = backbone.predict(network, backbone.add_noise(x, eps, t), t, condition)
            found.append(float(F.mse_loss(got, backbone.target(x, eps, t))))
    metrics = trainer.advance()
    assert metrics.policy_winner == pytest.approx((found[0] + found[2]) / 2, rel=1e-4)
    assert metrics.policy_loser == pytest.approx((found[1] + found[3]) / 2, rel=1e-4)


@pytest.mark.parametrize(
    "off",
    [
        {"reference": {"name": "hard-copy", "tau": 5}},
        {
            "timesteps": {
                "law": {"name": "discounted", "gamma": 1.0},
                "scale": {"name": "constant"},
            }
        },
    ],
    ids=["A", "B"],
)
def test_a_component_that_is_off_is_the_base_run(
    start: Run, tmp_path: Path, off: dict[str, Any]
) -> None:
    """Bit for bit; and the comparison can fail."""
    base = finished(start(), tmp_path / "base")
    assert finished(start(**off), tmp_path / "off") == base
    assert finished(start(**A, **B), tmp_path / "on") != base


def test_resumed_is_uninterrupted(start: Run, tmp_path: Path) -> None:
    """Both components on, stopped after the reference was updated: the same bytes."""
    whole = finished(start(**A, **B), tmp_path / "whole")
    actions = [json.loads(line)["reference_action"] for line in whole[METRICS].splitlines()]
    assert actions == ["none", "update", "none", "update"]

    def stop(step: int, metrics: StepMetrics) -> None:
        if step == 3:
            raise Interrupted

    folder = tmp_path / "again"
    with pytest.raises(Interrupted):
        start(**A, **B).run(folder, on_step=stop, checkpoint_every=2)
    resumed = start(**A, **B)
    resumed.run(folder)
    assert files(folder) == whole


def test_what_a_run_leaves_is_what_diffusers_loads(start: Run, tmp_path: Path) -> None:
    """By the pipeline's own from_pretrained, in the place of the base folder's part."""
    trainer = start()
    left = finished(trainer, tmp_path / "run")
    backbone = trainer.backbone
    part = backbone.network_part
    assert set(left) == {
        METRICS, f"{part}/config.json", f"{part}/diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    pipeline = backbone.load_pipeline(tmp_path / "run", "float32")
    saved, policy = getattr(pipeline, part).state_dict(), trainer.policy.state_dict()
    assert saved.keys() == policy.keys()
    assert all(torch.equal(saved[name], policy[name]) for name in saved)
    assert not all(torch.equal(saved[n], v) for n, v in trainer.init.state_dict().items())


def test_the_law_of_flow_models_trains(start: Run) -> None:
    """Its timesteps are others than the uniform law's; the draws behind them are the same."""
    flow, uniform = start(batch_size=12, **FLOW_LAW), start(batch_size=12)
    middle, even = flow.advance().timestep_deciles, uniform.advance().timestep_deciles
    assert middle != even
    assert sum(middle) == sum(even) == 12
