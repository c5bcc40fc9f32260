"""Training runs derived a second time, from published formulas, in code that shares none of ours.

Everything is in double precision: beta = 5000 makes 3e-4 of float32's 1e-7 in an error, and what is
compared here to 1e-6 would drown in it.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from trainers.backbones import Condition
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.core import Trainer


class Precise(StableDiffusion):
    """Stable Diffusion in double precision from the noised latents to the prediction."""

    def load_network(self) -> nn.Module:
        return super().load_network().double()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return super().add_noise(latents.double(), noise.double(), timesteps)

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition
    ) -> Tensor:
        double = {name: values.double() for name, values in condition.items()}
        return super().predict(network, noisy, timesteps, double)


@pytest.fixture
def precise(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Precise]:
    """The backbone, while what a step promotes to float32 is promoted to float64 instead."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        backbone = Precise(model_folder)
        # From the scheduler's betas: its cumulative product is rounded to float32.
        backbone.scheduler.alphas_cumprod = kept(model_folder)
        backbone.snr = backbone.scheduler.alphas_cumprod / (1 - backbone.scheduler.alphas_cumprod)
        yield backbone


def kept(model_folder: Path) -> Tensor:
    """abar_t = prod (1 - beta_s), beta_s linear in its root (scaled-linear), ``float64[1000]``."""
    config = DDPMScheduler.load_config(model_folder / "scheduler")
    assert (config["beta_start"], config["beta_end"]) == (0.00085, 0.012)
    assert (config["beta_schedule"], config["num_train_timesteps"]) == ("scaled_linear", 1000)
    roots = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000)
    return torch.from_numpy(np.cumprod(1 - roots**2))


@dataclass
class Original:
    """A run of Diffusion-DPO (arXiv 2311.12908), with the additions of arXiv 2505.18736 if asked.

    Works image by image and parameter by parameter. The draws (rows, noises, uniform numbers) are
    those of the trainer that it shadows; what is made of them is derived here.
    """

    trainer: Trainer
    policy: nn.Module
    init: nn.Module
    abar: Tensor
    beta: float = 5000.0
    factor: float = -0.5
    """Of beta in the logit: -1/2 in Diffusion-DPO's code."""
    dropout: float = 0.0
    gamma: float | None = None
    scaled: bool = False
    tau: int | None = None
    delta: float = math.inf
    subset: int = 16
    lr: float = 1e-4
    weight_decay: float = 1e-2
    max_norm: float = 1.0
    step: int = 0
    open: bool = True
    divergence: float | None = None
    loss: float = math.nan
    norm: float = math.nan
    timesteps: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reference = copy.deepcopy(self.init)
        self.parameters = list(self.policy.parameters())
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        root = ((1 - self.abar) / self.abar).sqrt()
        self.scale = 1 + (root - root[0]) / (root[-1] - root[0])

    def text(self, row: int, dropped: bool = False) -> Tensor:
        condition = self.trainer.data.condition(torch.tensor([row]), torch.tensor([dropped]))
        return condition["text"][0].double()

    def error(self, network: nn.Module, x: Tensor, eps: Tensor, t: int, text: Tensor) -> Tensor:
        """|eps - eps_theta(x_t, t, c)|^2 per element, of one image."""
        noisy = self.abar[t].sqrt() * x + (1 - self.abar[t]).sqrt() * eps
        guess: Tensor = network(noisy[None], t, encoder_hidden_states=text[None]).sample[0]
        return ((guess - eps) ** 2).sum() / eps.numel()

    def timestep(self, u: float) -> int:
        """Uniform, or the k-th noisiest of ten intervals with odds gamma^k and uniform in it."""
        if self.gamma is None:
            return int(1000 * u)
        odds = [self.gamma**k for k in range(10)]
        low = 0.0
        for cleanest in range(10):  # u runs from the cleanest end.
            share = odds[9 - cleanest] / sum(odds)
            if u < low + share or cleanest == 9:
                return int(100 * cleanest + 100 * (u - low) / share)
            low += share
        raise AssertionError

    def advance(self) -> None:
        size = self.trainer.config.batch_size
        draws = self.trainer.stream.at(self.step * size, size)
        self.timesteps = [self.timestep(u) for u in draws.uniform.tolist()]
        losses = []
        for i, t in enumerate(self.timesteps):
            row, eps = int(draws.rows[i]), draws.noise[i].double()
            text = self.text(row, bool(draws.drop[i] < self.dropout))
            sides = [
                (side.mean[0] + side.std[0] * draws.posterior[n, i]).double()
                for n, side in enumerate(self.trainer.data.images(torch.tensor([row])))
            ]
            new_w, new_l = (self.error(self.policy, x, eps, t, text) for x in sides)
            with torch.no_grad():
                old_w, old_l = (self.error(self.reference, x, eps, t, text) for x in sides)
            strength = self.beta * (self.scale[t] if self.scaled else 1.0)
            logit = self.factor * strength * ((new_w - new_l) - (old_w - old_l))
            losses.append(torch.log(1 + torch.exp(-logit)))
        loss = sum(losses) / size
        assert isinstance(loss, Tensor)
        self.loss = float(loss.detach())
        self.gradients = torch.autograd.grad(loss, self.parameters)
        self.step += 1
        self._adamw()
        self._reference(draws.rows[: self.subset].tolist())

    @torch.no_grad()
    def _adamw(self) -> None:
        """Loshchilov & Hutter 2019, Algorithm 2, after clipping to a joint norm."""
        self.norm = math.sqrt(sum(float((g**2).sum()) for g in self.gradients))
        clip = min(1.0, self.max_norm / (self.norm + 1e-6))  # torch's guard against 0 / 0
        slots = zip(self.parameters, self.gradients, self.first, self.second, strict=True)
        for p, g, m, v in slots:
            m.copy_(0.9 * m + 0.1 * clip * g)
            v.copy_(0.999 * v + 0.001 * (clip * g) ** 2)
            hat = v / (1 - 0.999**self.step)
            push = m / (1 - 0.9**self.step) / (hat.sqrt() + 1e-8)
            p.copy_(p - self.lr * self.weight_decay * p - self.lr * push)

    @torch.no_grad()
    def _reference(self, rows: list[int]) -> None:
        """Copy the policy every tau steps, until it is worse than init by more than delta."""
        self.divergence = None
        if self.tau is None or not self.open or self.step % self.tau:
            return
        winners, _ = self.trainer.data.images(torch.tensor(rows))
        uniform, noise = self.trainer.stream.gate(self.step, len(rows))
        worse = []
        images = zip(rows, winners.mean.double(), uniform.tolist(), noise.double(), strict=True)
        for row, x, u, eps in images:
            known = (x, eps, int(1000 * u), self.text(row))
            worse.append(self.error(self.policy, *known) - self.error(self.init, *known))
        self.divergence = float(sum(worse)) / len(worse)
        if self.divergence > self.delta:
            self.open = False
        else:
            self.reference = copy.deepcopy(self.policy)


@pytest.fixture
def shadow(model_folder: Path) -> Callable[..., Original]:
    """Make the second derivation of a trainer's run, from its start."""

    def make(trainer: Trainer, **settings: Any) -> Original:
        policy, init = (
            UNet2DConditionModel.from_pretrained(model_folder / "unet").double() for _ in range(2)
        )
        return Original(trainer, policy, init, kept(model_folder), **settings)

    return make


@pytest.fixture
def agree() -> Callable[[Trainer, Original], None]:
    """Make one step of both, and compare loss, every gradient and every parameter to 1e-6."""

    def step(trainer: Trainer, original: Original) -> None:
        original.advance()
        metrics = trainer.advance()
        assert metrics.loss == pytest.approx(original.loss, rel=1e-6)
        assert metrics.grad_norm == pytest.approx(original.norm, rel=1e-6)
        clip = min(1.0, original.max_norm / original.norm)
        triples = zip(
            trainer.policy.parameters(), original.parameters, original.gradients, strict=True
        )
        for got, want, gradient in triples:
            assert got.grad is not None
            assert same(got.grad, clip * gradient)
            assert same(got.detach(), want.detach())
        counts = np.bincount(np.array(original.timesteps) // 100, minlength=10)
        assert metrics.timestep_deciles == counts.tolist()
        if original.divergence is None:
            assert metrics.divergence is None
        else:
            assert metrics.divergence == pytest.approx(original.divergence, rel=1e-6, abs=1e-12)

    return step


def same(got: Tensor, want: Tensor) -> bool:
    """Whether two tensors differ by at most 1e-6 of their size (2-norm)."""
    assert got.dtype == torch.float64
    return bool((got - want).norm() <= 1e-6 * want.norm() + 1e-13)
