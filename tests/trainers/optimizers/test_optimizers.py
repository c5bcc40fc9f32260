"""Optimisers: their first steps by hand, their learning rate, and what they need."""

import sys
from typing import Any

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trainers.errors import UserError
from trainers.optimizers import OPTIMIZERS, Optimizer
from trainers.optimizers.adafactor import Adafactor
from trainers.optimizers.adamw import AdamW
from trainers.registry import build


def test_rates_by_hand() -> None:
    """Warm-up over 4 steps from 0, then constant; without it, constant at once."""
    warm = AdamW(lr=0.4, warmup_steps=4)
    assert [warm.lr_at(s, 6) for s in range(6)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert {AdamW(lr=0.4).lr_at(s, 3) for s in range(3)} == {0.4}
    # After 2 steps of warm-up 4 are left: shares 0, 1/4, 2/4, 3/4 of the way down are done.
    linear = AdamW(lr=0.8, warmup_steps=2, schedule="linear")
    assert [linear.lr_at(s, 6) for s in range(6)] == pytest.approx([0, 0.4, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize(
    ("schedule", "public"),
    [("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")],
)
def test_rates_are_those_of_the_public_schedules(schedule: Any, public: str, warmup: int) -> None:
    """As the scripts that recipes cite get them from diffusers."""
    steps, weight = 12, nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([weight], lr=0.3)
    scheduler = get_scheduler(public, theirs, num_warmup_steps=warmup, num_training_steps=steps)
    ours = AdamW(lr=0.3, warmup_steps=warmup, schedule=schedule)
    for step in range(steps):
        assert ours.lr_at(step, steps) == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-15)
        theirs.step()
        scheduler.step()


def test_adamw_is_fused_on_a_gpu_only() -> None:
    """Weights that only say that they are on a GPU; on a CPU the kernel would round otherwise."""
    fused = {}
    for device in ("cpu", "cuda"):
        with FakeTensorMode():
            weight = nn.Parameter(torch.empty(2, device=device))
            fused[device] = AdamW(lr=1.0).start(iter([weight])).defaults["fused"]
    assert fused == {"cpu": None, "cuda": True}


def test_adafactor_by_hand() -> None:
    """Two steps of Shazeer & Stern 2018, Algorithm 4 with a given rate, on a 2 x 3 matrix.

    beta_t = 1 - t^-0.8; row and column means of g^2 + eps; u = g / sqrt(V) clipped to a root mean
    square of d; theta <- theta - lr wd theta - lr u. The rate is not scaled by the parameter.
    """
    settings = Adafactor(lr=0.1, weight_decay=0.3, clip_threshold=0.5)
    start = torch.tensor([[1.0, -2.0, 3.0], [10.0, 20.0, -30.0]], dtype=torch.float64)
    gradients = [start.cos(), start.sin() + 0.1]
    weight = nn.Parameter(start.clone())
    optimizer = settings.start([weight])
    theta, row, column = start.clone(), torch.zeros(2).double(), torch.zeros(3).double()
    for t, g in enumerate(gradients, start=1):
        weight.grad = g.clone()
        optimizer.step()
        beta = 1 - t**-0.8
        row = beta * row + (1 - beta) * (g**2 + 1e-30).mean(1)
        column = beta * column + (1 - beta) * (g**2 + 1e-30).mean(0)
        update = g / (row[:, None] * column[None, :] / row.mean()).sqrt()
        rms = float(update.square().mean().sqrt())
        assert rms > 0.5  # The clipping is seen.
        theta = theta - 0.1 * 0.3 * theta - 0.1 * update / (rms / 0.5)
        torch.testing.assert_close(weight.detach(), theta, rtol=1e-9, atol=1e-12)


def test_eight_bits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    settings = build(OPTIMIZERS, {"name": "adamw-8bit", "lr": 1e-4})
    with pytest.raises(UserError, match=r"needs bitsandbytes.*pip install 'dpo-bench\[8bit\]'"):
        settings.start([nn.Parameter(torch.zeros(1))])


def test_eight_bits_are_given_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the names of bitsandbytes, which stand for what they do in torch."""
    seen: dict[str, Any] = {}

    class Optim:
        @staticmethod
        def AdamW8bit(parameters: Any, **settings: Any) -> torch.optim.Optimizer:
            seen.update(settings)
            return torch.optim.AdamW(parameters, **settings)

    monkeypatch.setitem(sys.modules, "bitsandbytes", type(sys)("bitsandbytes"))
    monkeypatch.setattr(sys.modules["bitsandbytes"], "optim", Optim, raising=False)
    settings = {"lr": 1e-4, "betas": (0.8, 0.9), "eps": 1e-7, "weight_decay": 0.2}
    build(OPTIMIZERS, {"name": "adamw-8bit", **settings}).start([nn.Parameter(torch.zeros(1))])
    assert seen == settings


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_the_state_is_as_large_as_it_says(name: str) -> None:
    """After a step: every tensor of the state with more than one number, which a counter has."""
    shapes = [(4, 8), (38,), (3, 2, 5, 5)]
    settings = build(OPTIMIZERS, {"name": name, "lr": 1e-4})
    weights = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = settings.start(weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    assert settings.state_bytes(shapes) == sum(v.nbytes for v in kept if v.numel() > 1)


def test_an_optimiser_that_says_nothing_counts_as_adamw() -> None:
    """Two float32 numbers a weight, and one byte each with eight bits; FSDP is for AdamW alone."""

    class Silent(AdamW):
        state_bytes = Optimizer.state_bytes

    assert Silent(lr=1.0).state_bytes([(4, 8)]) == AdamW(lr=1.0).state_bytes([(4, 8)]) == 8 * 32
    eight = build(OPTIMIZERS, {"name": "adamw-8bit", "lr": 1e-4})
    assert eight.state_bytes([(4, 8), (38,)]) == 2 * 70
    assert [n for n in OPTIMIZERS.names() if OPTIMIZERS.get(n).shardable] == ["adamw"]
