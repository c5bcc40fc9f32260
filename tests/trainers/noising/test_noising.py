"""Noise that is drawn, and noise that a policy finds, step by step by hand."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.noising import Noising
from trainers.noising.ddim_inversion import DDIMInversion
from trainers.noising.forward import Forward
from trainers.noising.renoise import ReNoise

Configure = Callable[..., TrainConfig]
SHAPE = (4, 4, 4)


def drawn(seed: int, rows: int) -> Tensor:
    return torch.randn((rows, *SHAPE), generator=torch.Generator().manual_seed(seed))


def guess(noisy: Tensor, timesteps: Tensor) -> Tensor:
    """A policy of sorts: it depends on what it sees and on when."""
    return torch.tanh(noisy) + timesteps.view(-1, 1, 1, 1) / 1000


def never(*_: Any) -> Any:
    raise AssertionError("nothing is to be run or drawn")


def found(
    noising: Noising, backbone: StableDiffusion, latents: Tensor, timesteps: Tensor,
    normal: Callable[[str], Tensor] = never,
) -> Tensor:  # fmt: skip
    return noising.noise(latents, timesteps, drawn(9, len(latents)), normal, backbone, guess)


def test_forward_shares_the_noise_or_the_timestep_alone(backbone: StableDiffusion) -> None:
    """The winner keeps the noise that both have otherwise."""
    latents, times, shared, own = drawn(0, 4), torch.tensor([1, 2, 1, 2]), drawn(1, 2), drawn(2, 4)
    args = (latents, times, shared)
    both = Forward().noise(*args, never, backbone, never)
    assert torch.equal(both, torch.cat([shared, shared]))
    apart = Forward(share="timestep").noise(*args, lambda axis: own, backbone, never)
    assert torch.equal(apart, torch.cat([shared, own[2:]]))
    single = Forward(share="timestep").noise(shared, times[:2], shared, never, backbone, never)
    assert torch.equal(single, shared)


def abar(t: int) -> float:
    """Of Stable Diffusion's scaled-linear betas."""
    first, last = 0.00085**0.5, 0.012**0.5
    return math.prod(1 - (first + (last - first) * s / 999) ** 2 for s in range(t + 1))


def walk(x: Tensor, times: list[int], guesses: int, eta: float = 0.0, noise: Any = None) -> Tensor:
    """DDIM from each timestep to the next for one image, in double precision."""
    x = x.double()
    for k, (s, t) in enumerate(pairwise(times)):

        def go(eps: Tensor) -> Tensor:
            clean = (x - math.sqrt(1 - abar(s)) * eps) / math.sqrt(abar(s))  # noqa: B023
            return math.sqrt(abar(t)) * clean + math.sqrt(1 - abar(t)) * eps  # noqa: B023

        told = torch.tensor([t])
        eps = guess(x[None], told)[0]
        if guesses == 2:
            eps = (eps + guess(go(eps)[None], told)[0]) / 2
        x = go(eps)
        if eta:
            variance = (1 - abar(s)) / (1 - abar(t)) * (1 - abar(t) / abar(s))
            x = x + eta * math.sqrt(variance) * noise(k)
    return x


@pytest.mark.parametrize(
    ("noising", "guesses"),
    [(DDIMInversion(steps=4, eta=0.0), 1), (ReNoise(steps=4), 2), (DDIMInversion(steps=4), 1)],
    ids=["ddim", "renoise", "ddim with fresh noise"],
)
def test_every_row_is_brought_to_its_own_t(
    noising: Any, guesses: int, backbone: StableDiffusion
) -> None:
    """In 4 equal steps from timestep 0; x_t by the noise found is where the walk ends."""
    latents, times = drawn(0, 4), torch.tensor([999, 501, 8, 130])
    fresh = [drawn(20 + k, 4) for k in range(4)]
    eps = found(noising, backbone, latents, times, lambda axis: fresh[int(axis.split()[-1])])
    noisy = backbone.add_noise(latents, eps, times)
    for row, t in enumerate(times.tolist()):
        stops = [t * k // 4 for k in range(5)]
        ended = walk(
            latents[row], stops, guesses, noising.eta, lambda k, row=row: fresh[k][row].double()
        )
        torch.testing.assert_close(noisy[row].double(), ended, rtol=1e-3, atol=1e-3)
        b, a = math.sqrt(1 - abar(t)), math.sqrt(abar(t))
        expected = (ended - a * latents[row]) / b
        torch.testing.assert_close(eps[row].double(), expected, rtol=1e-2, atol=5e-3)


def public(scheduler: Path, x: Tensor, t: int, steps: int, twice: bool, eta: float, noise: Any
           ) -> Tensor:  # fmt: skip
    """The public loop for one image with the schedulers of diffusers: eps of its ``t``."""
    inverse = DDIMInverseScheduler.from_pretrained(scheduler)
    forward = DDIMScheduler.from_pretrained(scheduler)
    inverse.set_timesteps(steps)
    start, x = x, x.double()
    for k, s in enumerate(inverse.timesteps[inverse.timesteps < t]):
        eps = guess(x, s[None])
        if twice:
            ahead = inverse.step(eps, s, x).prev_sample
            eps = (eps + guess(ahead, s[None])) / 2
        x = inverse.step(eps, s, x).prev_sample
        if eta:
            x = x + eta * forward._get_variance(s + 1000 // steps, s) ** 0.5 * noise(k)
    kept = forward.alphas_cumprod[t]
    return (x - kept.sqrt() * start) / (1 - kept).sqrt()


@pytest.mark.parametrize("t", [0, 1, 2, 150, 501, 502, 640, 999])
@pytest.mark.parametrize(
    ("noising", "twice"),
    [(DDIMInversion(steps=10, grid="fixed", eta=0.0), False),
     (ReNoise(steps=5, grid="fixed"), True)],
    ids=["InPO", "SmPO"],
)  # fmt: skip
def test_the_fixed_grid_is_that_of_the_public_code(
    noising: Any, twice: bool, t: int, backbone: StableDiffusion, model_folder: Path
) -> None:
    """Rows one at a time by diffusers' own inverse scheduler, which stops below t."""
    latents = drawn(3, 2)
    ours = found(noising, backbone, latents, torch.tensor([t, 640]))[:1]
    theirs = public(model_folder / "scheduler", latents[:1], t, noising.steps, twice, 0.0, never)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=2e-3)


def test_the_fresh_noise_of_the_fixed_grid_is_that_of_the_step_after(
    backbone: StableDiffusion, model_folder: Path
) -> None:
    """As the public code takes it, where that step still lies within the schedule."""
    latents, fresh = drawn(3, 1), [drawn(30 + k, 1) for k in range(10)]
    noising = DDIMInversion(grid="fixed", eta=0.7)
    ours = found(
        noising, backbone, latents, torch.tensor([640]), lambda axis: fresh[int(axis.split()[-1])]
    )
    theirs = public(
        model_folder / "scheduler", latents, 640, 10, False, 0.7, lambda k: fresh[k].double()
    )
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=2e-3)


def test_at_the_first_timestep_no_policy_is_run(backbone: StableDiffusion) -> None:
    """x_t is the image itself: eps = (1 - a) / b x_0."""
    latents, kept = drawn(0, 1), abar(0)
    eps = found(ReNoise(), backbone, latents, torch.tensor([0]))
    expected = (1 - math.sqrt(kept)) / math.sqrt(1 - kept) * latents
    torch.testing.assert_close(eps, expected, rtol=1e-2, atol=1e-5)


def test_inversion_is_by_the_present_policy_under_the_caption(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Winner and loser share t, not the noise; another policy finds another noise."""
    config = configure(noising={"name": "ddim-inversion", "steps": 2, "eta": 0.0}, batch_size=2)
    trainer = Trainer(config, backbone, latents)
    draws, times = trainer.stream.at(0, 2), torch.tensor([700, 300])
    inputs = trainer.examples.inputs(draws, times, trainer.policy)
    assert inputs.timesteps.tolist() == [700, 300, 700, 300]
    winner, loser = inputs.target.chunk(2)
    assert not torch.allclose(winner, loser)
    assert not inputs.target.requires_grad
    with torch.no_grad():
        for weight in trainer.policy.parameters():
            weight.mul_(1.1)
    again = trainer.examples.inputs(draws, times, trainer.policy)
    assert not torch.allclose(again.target, inputs.target)
