"""Every objective, safeguard and noising on SDXL and on a flow model, with A and B."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainers.backbones import Backbone
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData
from trainers.objectives import OBJECTIVES

AB = {
    "reference": {"name": "hard-copy", "tau": 2, "delta": 1.0, "subset": 2},
    "timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}},
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"objective": {"name": name}} for name in OBJECTIVES.names()},
    "sdpo": {"safeguard": {"name": "sdpo"}},
    "own noises": {"noising": {"name": "forward", "share": "timestep"}},
    "ddim-inversion": {"noising": {"name": "ddim-inversion", "steps": 2}},
    "renoise": {"noising": {"name": "renoise", "steps": 2}},
}


@pytest.mark.parametrize("backbone", ["stable-diffusion-xl", "stable-diffusion-3"])
@pytest.mark.parametrize("case", CASES)
def test_three_steps(
    case: str, backbone: str, configure: Callable[..., TrainConfig],
    backbones: dict[str, Backbone], data: dict[str, PairData],
) -> None:  # fmt: skip
    """Whole and in two parts: the same loss, finite, and weights that move."""
    settings = AB | CASES[case] | {"backbone": backbone, "batch_size": 4}
    one, other = (
        Trainer(configure(accumulation=n, **settings), backbones[backbone], data[backbone])
        for n in (1, 2)
    )
    before = [p.detach().clone() for p in one.policy.parameters()]
    for _ in range(3):
        expected, found = one.advance(), other.advance()
        assert found.loss == pytest.approx(expected.loss, rel=1e-2, abs=1e-5)
        other.policy.load_state_dict(one.policy.state_dict())
        if one.reference is not None and other.reference is not None:
            other.reference.model.load_state_dict(one.reference.model.state_dict())
    assert all(p.isfinite().all() for p in one.policy.parameters())
    assert not all(map(torch.equal, before, one.policy.parameters()))


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3"])
def test_a_prediction_taken_apart(name: str, backbones: dict[str, Backbone]) -> None:
    """The target of x_0 and eps is made of them and gives them back; a, b are those of the SNR."""
    backbone = backbones[name]
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 3, 4, 4, 4), generator=generator)
    times = torch.tensor([0, 400, 990])
    noisy, target = (make(clean, noise, times) for make in (backbone.add_noise, backbone.target))
    a, b = backbone.shares(times)
    torch.testing.assert_close(a * clean + b * noise, noisy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((a / b).flatten().square().double(), backbone.snr[times], rtol=1e-3,
                               atol=1e-9)  # fmt: skip
    found = backbone.split(target, noisy, a, b)
    for got, want in zip(found, (clean, noise), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_v_prediction_taken_apart(backbones: dict[str, Backbone]) -> None:
    """v = a eps - b x_0, so x_0 = a x_t - b v and eps = a v + b x_t."""
    backbone: Any = backbones["stable-diffusion"]
    kept = backbone.scheduler
    try:
        backbone.scheduler = type(kept).from_config(kept.config, prediction_type="v_prediction")
        clean, noise = torch.randn((2, 2, 4, 4, 4), generator=torch.Generator().manual_seed(0))
        times = torch.tensor([100, 900])
        noisy, target = (
            make(clean, noise, times) for make in (backbone.add_noise, backbone.target)
        )
        found = backbone.split(target, noisy, *backbone.shares(times))
    finally:
        backbone.scheduler = kept
    for got, want in zip(found, (clean, noise), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
