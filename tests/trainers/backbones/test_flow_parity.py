"""DPO on a flow derived again: loss and gradients of Stable Diffusion 3's form.

    x_sigma = (1 - sigma) x_0 + sigma eps        v = eps - x_0
    u = -beta / 2 ((|v - v_w|^2 - |v - r_w|^2) - (|v - v_l|^2 - |v - r_l|^2))

with one sigma and eps for both images, sigma logit-normal and shifted (Esser et al. 2024, arXiv
2403.03206; the DPO form of ``yifan123/flow_grpo``, ``train_sd3_dpo.py``). In double precision.
"""

import copy
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.backbones import Condition, Moments
from trainers.backbones.stable_diffusion_3 import StableDiffusion3
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData

PAIRS, TOKENS, SHIFT, BETA = 6, 5, 3.0, 100.0
LATENT = (8, 4, 4)


class Precise(StableDiffusion3):
    """The scheduler's grid, which is float32, taken for exact."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sigmas = self._sigmas.double()
        self._times = 1000 * self._sigmas

    def load_network(self) -> nn.Module:
        return super().load_network().double()


class Pairs(PairData):
    """Random latents and texts."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.sides = torch.randn((2, PAIRS, *LATENT), generator=generator, dtype=torch.float64)
        self.text = torch.randn((PAIRS, TOKENS, 48), generator=generator, dtype=torch.float64)
        self.pooled = torch.randn((PAIRS, 22), generator=generator, dtype=torch.float64)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return LATENT

    def __len__(self) -> int:
        return PAIRS

    def images(self, rows: Tensor) -> tuple[Moments, Moments]:
        winner, loser = (Moments(side[rows], torch.zeros_like(side[rows])) for side in self.sides)
        return winner, loser

    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        return {"text": self.text[rows], "pooled": self.pooled[rows]}

    def preference(self, rows: Tensor) -> Tensor:
        return torch.ones(len(rows), dtype=torch.float64)


def velocity_error(network: nn.Module, x: Tensor, eps: Tensor, sigma: Tensor, pairs: Any) -> Tensor:
    """|v - v_theta(x_sigma)|^2 per element; ``pairs`` is (text, pooled) of one prompt."""
    noisy = (1 - sigma) * x + sigma * eps
    guess: Tensor = network(
        hidden_states=noisy[None], timestep=1000 * sigma[None],
        encoder_hidden_states=pairs[0][None], pooled_projections=pairs[1][None],
    ).sample[0]  # fmt: skip
    return ((eps - x - guess) ** 2).sum() / x.numel()


def test_flow_dpo(
    sd3_folder: Path, configure: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps; after the first, policy and reference differ and losses leave ln 2."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = configure(
        backbone="stable-diffusion-3",
        objective={"name": "dpo", "beta": BETA},
        timesteps={"law": {"name": "logit-normal"}, "scale": {"name": "constant"}},
        optimizer={"lr": 1e-3, "max_grad_norm": 1e9},
        batch_size=3,
    )
    data, backbone = Pairs(), Precise(sd3_folder)
    trainer = Trainer(config, backbone, data)
    reference = copy.deepcopy(trainer.policy)
    normal = statistics.NormalDist()
    for step in range(3):
        policy = copy.deepcopy(trainer.policy)
        draws = trainer.stream.at(3 * step, 3)
        losses = []
        for i, row in enumerate(draws.rows.tolist()):
            index = int(1000 / (1 + math.exp(-normal.inv_cdf(float(draws.uniform[i])))))
            s = (index + 1) / 1000
            sigma = backbone._sigmas[index]
            assert float(sigma) == pytest.approx(SHIFT * s / (1 + (SHIFT - 1) * s), rel=1e-6)
            condition, eps = (data.text[row], data.pooled[row]), draws.noise[i].double()
            new_w, new_l, old_w, old_l = (
                velocity_error(network, side[row], eps, sigma, condition)
                for network in (policy, reference)
                for side in data.sides
            )
            u = -BETA / 2 * ((new_w - old_w.detach()) - (new_l - old_l.detach()))
            losses.append(torch.log(1 + torch.exp(-u)))
        loss = torch.stack(losses).mean()
        gradients = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
        metrics = trainer.advance()
        assert metrics.loss == pytest.approx(loss.item(), rel=1e-6)
        assert step == 0 or abs(metrics.loss - math.log(2)) > 1e-4
        size = math.sqrt(sum(float((g**2).sum()) for g in gradients if g is not None))
        assert size > 0
        for got, want in zip(trainer.policy.parameters(), gradients, strict=True):
            assert (got.grad is None) == (want is None)
            if want is not None and got.grad is not None:
                assert (got.grad - want).norm() <= 1e-6 * want.norm() + 1e-10 * size
