"""Steps of the trainer against Diffusion-DPO derived again: loss, gradients, AdamW, reference."""

from collections.abc import Callable
from typing import Any

import pytest

from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData

Step = Callable[[Trainer, Any], None]
Configure = Callable[..., TrainConfig]
FULL: dict[str, Any] = {
    "law": {"name": "discounted", "gamma": 0.9, "intervals": 10},
    "scale": {"name": "inverse-sqrt-snr"},
}


def dpo(configure: Configure, **changes: Any) -> TrainConfig:
    return configure(
        **({"objective": {"name": "dpo", "beta": 5000.0}, "optimizer": {"lr": 1e-4}} | changes)
    )


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"batch_size": 3}, {}),
        ({"batch_size": 4, "accumulation": 4}, {}),
        ({"batch_size": 4, "accumulation": 2, "caption_dropout": 0.4}, {"dropout": 0.4}),
        ({"batch_size": 3, "timesteps": FULL}, {"gamma": 0.9, "scaled": True}),
    ],
    ids=["plain", "accumulation", "caption dropout", "timestep-aware"],
)
def test_diffusion_dpo(
    precise: Any, configure: Configure, latents: PairData, shadow: Any, agree: Step,
    config: dict[str, Any], settings: dict[str, Any],
) -> None:  # fmt: skip
    """u = -0.5 beta lambda ((L_w - L_l) - (R_w - R_l)), one noise and timestep for both images.

    After the first step, in which policy and reference are one, all losses differ from ln 2.
    """
    trainer = Trainer(dpo(configure, **config), precise, latents)
    original = shadow(trainer, **settings)
    losses = []
    for _ in range(4):
        agree(trainer, original)
        losses.append(original.loss)
    assert losses[0] == pytest.approx(0.6931471805599453, rel=1e-12)
    assert min(abs(loss - losses[0]) for loss in losses[1:]) > 1e-3


def test_the_beta_of_the_sd_script_of_diffusers(
    precise: Any, configure: Configure, latents: PairData, shadow: Any, agree: Step
) -> None:
    """Its logit is -beta times the same difference: its 2500 are 5000 here."""
    trainer = Trainer(dpo(configure), precise, latents)
    original = shadow(trainer, beta=2500.0, factor=-1.0)
    for _ in range(3):
        agree(trainer, original)


def test_a_run_with_updates_and_a_freeze(
    precise: Any, configure: Configure, latents: PairData, shadow: Any, agree: Step
) -> None:
    """The reference is the policy of every second step until the divergence exceeds delta.

    D = mean(mse(policy) - mse(init)) on winners. delta lies between what an ungated run measures:
    two updates, then a freeze, after which nothing is measured any more.
    """
    timesteps = {"timesteps": FULL, "optimizer": {"lr": 1e-3}, "batch_size": 3}
    ungated = {"name": "hard-copy", "tau": 2, "delta": None, "subset": 2}
    free = Trainer(dpo(configure, reference=ungated, **timesteps), precise, latents)
    seen = [m.divergence for m in (free.advance() for _ in range(8)) if m.divergence is not None]
    over = next(n for n in range(1, 4) if seen[n] > max(seen[:n]))
    delta = (seen[over] + max(seen[:over])) / 2
    assert delta > 0

    gated = ungated | {"delta": delta}
    trainer = Trainer(dpo(configure, reference=gated, **timesteps), precise, latents)
    original = shadow(trainer, gamma=0.9, scaled=True, tau=2, delta=delta, subset=2, lr=1e-3)
    opened = []
    for _ in range(2 * over + 5):
        agree(trainer, original)
        opened.append(original.open)
    assert opened == [True] * (2 * over + 1) + [False] * 4
    kept = zip(trainer.reference.model.parameters(), original.reference.parameters(), strict=True)
    assert all((a - b).norm() <= 1e-6 * b.norm() + 1e-13 for a, b in kept)


def test_lambda_and_intervals_by_the_schedule_of_stable_diffusion(
    precise: Any, configure: Configure, latents: PairData
) -> None:
    """Check values by hand: lambda from 1 at t = 0 to 2 at t = 999, 15.4 % in the noisiest tenth.

    0.1 / (1 - 0.9^10) = 0.15353.
    """
    trainer = Trainer(dpo(configure, timesteps=FULL), precise, latents)
    at = {0: 1.000, 500: 1.109, 750: 1.279, 900: 1.570, 950: 1.750, 999: 2.000}
    assert {t: round(float(trainer.scale[t]), 3) for t in at} == at
    assert round(float(trainer.scale.mean()), 3) == 1.205
    uniform = trainer.stream.at(0, 20_000).uniform
    drawn = trainer.config.timesteps.law.timesteps(uniform, 1000)
    share = float((drawn >= 900).double().mean())
    # Four standard deviations of a share of 20,000 draws.
    assert share == pytest.approx(0.15353, abs=4 * (0.15353 * 0.84647 / 20_000) ** 0.5)
