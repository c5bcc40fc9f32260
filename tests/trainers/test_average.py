"""The moving average of the policy."""

import pytest
import torch
from torch import nn

from trainers.average import Average


def follow(settings: Average, steps: int) -> list[float]:
    """The average after each step of a policy whose one weight is the number of the step."""
    policy = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    policy.weight.data.fill_(0.0)
    average = settings.start(policy)
    held = []
    for step in range(1, steps + 1):
        policy.weight.data.fill_(float(step))
        settings.after_step(step, average, policy)
        held.append(float(average.weight.detach()))  # type: ignore[arg-type, operator]
    assert not any(p.requires_grad for p in average.parameters())
    return held


def test_closed_form() -> None:
    """With theta_i = i from 0: (1 - d) sum_i d^(n - i) i = n - d (1 - d^n) / (1 - d)."""
    d = 0.9
    closed = [n - d * (1 - d**n) / (1 - d) for n in range(1, 21)]
    assert follow(Average(decay=d, warmup=False), 20) == pytest.approx(closed, rel=1e-10)


def test_every_third_step() -> None:
    """0.5 * 0 + 0.5 * 3 = 1.5, then 0.5 * 1.5 + 0.5 * 6 = 3.75."""
    got = follow(Average(decay=0.5, every=3, warmup=False), 7)
    assert got == pytest.approx([0, 0, 1.5, 1.5, 1.5, 3.75, 3.75])


def test_warm_up() -> None:
    """Decays 2/11, 3/12, 4/13 of the first updates, whatever the step, until decay is less."""
    settings = Average(decay=0.9, every=2)
    assert [settings.decay_at(n) for n in (1, 2, 3)] == pytest.approx([2 / 11, 3 / 12, 4 / 13])
    assert settings.decay_at(80) == 81 / 90 == settings.decay_at(10_000)
    first = 9 / 11 * 2
    assert follow(settings, 4) == pytest.approx([0, first, first, first / 4 + 0.75 * 4])
