"""Timestep laws and reward scales against the numbers of their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.errors import UserError
from trainers.registry import build
from trainers.timesteps import LAWS, SCALES, TimestepLaw
from trainers.timesteps.laws.discounted import Discounted
from trainers.timesteps.laws.logit_normal import LogitNormal
from trainers.timesteps.laws.uniform import Uniform
from trainers.timesteps.scales.constant import Constant
from trainers.timesteps.scales.inverse_sqrt_snr import InverseSqrtSNR

T = 1000
LAST = 1 - 2.0**-53
"""The largest draw below 1."""


def grid(n: int) -> Tensor:
    """The midpoints of ``n`` equal parts of [0, 1)."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def stable_diffusion_snr() -> Tensor:
    """SNR of SD's schedule: beta_t = (linspace(sqrt 0.00085, sqrt 0.012, 1000))^2."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, T) ** 2
    kept = np.cumprod(1 - betas)
    return torch.from_numpy(kept / (1 - kept))


@pytest.mark.parametrize(
    ("t", "golden"),
    [(0, 1.000), (500, 1.109), (750, 1.279), (900, 1.570), (950, 1.750), (999, 2.000)],
)
def test_lambda_on_stable_diffusions_schedule(t: int, golden: float) -> None:
    """1 + (s_t - min s) / (max s - min s), s = sqrt((1 - abar) / abar) (arXiv 2505.18736)."""
    factors = InverseSqrtSNR().factors(stable_diffusion_snr())
    assert factors.dtype == torch.float32
    assert factors[t].item() == pytest.approx(golden, abs=5e-4)


def test_lambda_has_mean_1_205_and_grows_with_noise() -> None:
    """It runs from exactly 1 to exactly 2, more steeply the noisier: most of it near 1."""
    factors = InverseSqrtSNR().factors(stable_diffusion_snr())
    assert factors.mean().item() == pytest.approx(1.205, abs=5e-4)
    assert (factors[0].item(), factors[-1].item()) == (1.0, 2.0)
    assert (factors.diff() > 0).all()


def test_lambda_depends_on_the_noise_level_only_up_to_units() -> None:
    """1/sqrt(SNR) in other units, c * SNR, is min-max normalised to the same lambda."""
    snr = stable_diffusion_snr()
    ours, theirs = (InverseSqrtSNR().factors(c * snr) for c in (1.0, 37.0))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_lambda_of_a_schedule_without_signal_is_refused_without_a_floor() -> None:
    """1/sqrt(0) is infinite, so min-max would make 0/0 of the last and 1 of all other steps."""
    snr = stable_diffusion_snr()
    snr[-1] = 0.0
    with pytest.raises(UserError, match="inverse-sqrt-snr"):
        InverseSqrtSNR(floor=None).factors(snr)


def test_the_floor_changes_nothing_on_stable_diffusions_schedule() -> None:
    """To the bit: the schedule ends at SNR 0.0046819, above it."""
    snr = stable_diffusion_snr()
    assert torch.equal(InverseSqrtSNR().factors(snr), InverseSqrtSNR(floor=None).factors(snr))
    assert snr[-1].item() == pytest.approx(0.0046819, abs=1e-7)


def test_lambda_on_a_flow_schedule() -> None:
    """1 + (r - r_0) / (R - r_0), r = sigma / (1 - sigma), R = 1 / sqrt(0.00468): 2 from sigma on

    where r = R. At the same noise level, r = 3, Stable Diffusion's schedule has the same lambda to
    the difference of the schedules' first steps, 0.003 and 0.029, relative to R = 14.6.
    """
    s = torch.arange(1, T + 1, dtype=torch.float64) / T
    sigma = 3 * s / (1 + 2 * s)
    factors = InverseSqrtSNR().factors(((1 - sigma) / sigma) ** 2)
    assert (factors.diff() >= 0).all()
    assert (factors[0].item(), factors[-1].item()) == (1.0, 2.0)
    assert torch.equal(factors == 2.0, sigma / (1 - sigma) >= 0.00468**-0.5)
    middle = T // 2 - 1  # s = 1/2: sigma 3/4, r = 3
    expected = 1 + (3 - 0.003) / (0.00468**-0.5 - 0.003)
    assert factors[middle].item() == pytest.approx(expected, abs=1e-5)
    theirs = stable_diffusion_snr()
    near = int((theirs - 1 / 9).abs().argmin())
    assert InverseSqrtSNR().factors(theirs)[near].item() == pytest.approx(expected, abs=4e-3)


def test_constant_scale_is_one() -> None:
    """Exactly 1, so that beta * lambda is beta to the bit."""
    assert Constant().factors(stable_diffusion_snr()).tolist() == [1.0] * T


@pytest.mark.parametrize(("intervals", "golden"), [(10, 0.154), (50, 0.412)])
def test_discounted_share_of_every_decile(intervals: int, golden: float) -> None:
    """p_k ~ 0.9^k, k from the noisiest: its decile gets (1 - 0.9^(K/10)) / (1 - 0.9^K).

    15.4 % for K = 10 and 41.2 % for K = 50; the decile j steps cleaner 0.9^(j K/10) times that.
    An even grid of N draws puts within one of N * p into a decile.
    """
    n = 200_000
    counts = torch.bincount(
        Discounted(gamma=0.9, intervals=intervals).timesteps(grid(n), T) // 100, minlength=10
    )
    per_decile = intervals // 10
    noisiest = (1 - 0.9**per_decile) / (1 - 0.9**intervals)
    assert noisiest == pytest.approx(golden, abs=5e-4)
    expected = [n * noisiest * 0.9 ** (per_decile * j) for j in range(10)]
    assert counts.flip(0).tolist() == pytest.approx(expected, abs=1.01)


def test_discounted_is_uniform_inside_an_interval() -> None:
    """Each of the 100 timesteps of the noisiest decile gets 1/100 of its 15.35 %."""
    n = 200_000
    drawn = Discounted(gamma=0.9, intervals=10).timesteps(grid(n), T)
    counts = torch.bincount(drawn, minlength=T)[900:]
    assert counts.tolist() == pytest.approx([n * 0.1 / (1 - 0.9**10) / 100] * 100, abs=1.01)


def test_uniform_law() -> None:
    """10 000 even draws fall on each of 1000 timesteps exactly 10 times, in order."""
    drawn = Uniform().timesteps(grid(10_000), T)
    assert torch.equal(drawn, torch.arange(T).repeat_interleave(10))


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (-0.5, 1.4), (1.0, 0.3)])
def test_logit_normal_law(location: float, scale: float) -> None:
    """P(t < T x) = Phi((logit x - location) / scale) (arXiv 2403.03206, section 3.1)."""
    n = 200_000
    drawn = LogitNormal(location=location, scale=scale).timesteps(grid(n), T)
    for x in (0.05, 0.3, 0.5, 0.9):
        z = (math.log(x / (1 - x)) - location) / scale
        below = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        assert int((drawn < T * x).sum()) == pytest.approx(n * below, abs=1.01)


def test_a_larger_location_is_noisier() -> None:
    """For every single draw."""
    calm, noisy = (LogitNormal(location=m).timesteps(grid(999), T) for m in (-1.0, 1.0))
    assert (noisy > calm).all()


@pytest.mark.parametrize("intervals", [1, 7, 10, 50, 64])
def test_gamma_one_is_the_uniform_law(intervals: int) -> None:
    """Without a discount all intervals weigh the same: the same timestep for every draw.

    Where u * T is an integer, rounding in a cumulative sum would move a draw to its neighbour.
    """
    law = Discounted(gamma=1.0, intervals=intervals)
    random = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edges = torch.arange(T, dtype=torch.float64) / T
    below = torch.nextafter(edges[1:], torch.zeros(T - 1, dtype=torch.float64))
    for draws in (edges, below, grid(4096), random):
        assert torch.equal(law.timesteps(draws, T), Uniform().timesteps(draws, T))


@pytest.mark.parametrize(
    "law",
    [Uniform(), Discounted(), Discounted(intervals=50), Discounted(gamma=0.01), LogitNormal()],
)
def test_laws_at_the_ends(law: TimestepLaw) -> None:
    """The least draw gives timestep 0, the largest T - 1, for any number of timesteps."""
    ends = torch.tensor([0.0, LAST], dtype=torch.float64)
    for count in (1, 3, 1000, 1001):
        assert law.timesteps(ends, count).tolist() == [0, count - 1]


@settings(max_examples=60, deadline=None)
@given(
    gamma=st.floats(0.05, 1),
    intervals=st.integers(1, 120),
    count=st.integers(1, 1500),
    draws=st.lists(st.floats(0, LAST), min_size=2, max_size=50),
)
def test_discounted_is_monotone_and_in_range(
    gamma: float, intervals: int, count: int, draws: list[float]
) -> None:
    """It inverts a distribution function, so a larger draw never gives a smaller timestep."""
    edges = torch.arange(intervals, dtype=torch.float64) / intervals
    uniform = torch.cat([torch.tensor(draws, dtype=torch.float64), edges]).sort().values
    drawn = Discounted(gamma=gamma, intervals=intervals).timesteps(uniform, count)
    assert drawn.dtype == torch.int64
    assert (drawn.diff() >= 0).all()
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < count


@settings(max_examples=30, deadline=None)
@given(gamma=st.floats(0.3, 0.99), intervals=st.sampled_from([2, 5, 20, 40]))
def test_discounted_neighbours_differ_by_gamma(gamma: float, intervals: int) -> None:
    """Interval k + 1 gets gamma times what interval k gets, to the grain of the grid."""
    n = 20_000
    drawn = Discounted(gamma=gamma, intervals=intervals).timesteps(grid(n), T)
    counts = torch.bincount(drawn * intervals // T, minlength=intervals).flip(0).double()
    assert (counts[1:] - gamma * counts[:-1]).abs().max().item() <= 2.02


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        ({"gamma": 0.0}, "gamma"),
        ({"gamma": 1.01}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": "much"}, "gamma"),
        ({"intervals": 0}, "intervals"),
        ({"intervals": 2.5}, "intervals"),
        ({"steepness": 1}, "steepness"),
    ],
)
def test_bad_settings_name_their_field(settings_: dict[str, object], field: str) -> None:
    """One line with the law, the field and what was given."""
    with pytest.raises(UserError, match=rf"timestep law 'discounted': {field}: ") as caught:
        build(LAWS, {"name": "discounted", **settings_})
    assert "\n" not in str(caught.value)


def test_scales_take_no_settings() -> None:
    """A key for the wrong plug-in is refused, not ignored."""
    with pytest.raises(UserError, match="gamma: unknown key"):
        build(SCALES, {"name": "inverse-sqrt-snr", "gamma": 0.9})
