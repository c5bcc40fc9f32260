"""The moderated interval against quadrature, hand-derived values and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats

from bench.stats import SeedNoise, crossed_interval, mean_squares, moderated_interval, seed_noise
from bench.stats.moderated import UNKNOWN, Parts, behrens_fisher_p, moderate, moderated_p

Array = NDArray[np.float64]
LITTLE = np.array([[1.0, 2.0], [3.0, 6.0]])  # MSs 9, MSp 4, MSe 1, mean 3


def arms(seed: int, n: int = 3, n_seeds: int = 4, n_prompts: int = 50) -> list[Array]:
    """Scores of arms with seed, prompt and residual noise."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(0, 0.3, (n_seeds, 1))
        + rng.normal(0, 1, n_prompts)
        + rng.normal(0, 1, (n_seeds, n_prompts))
        for _ in range(n)
    ]


@pytest.mark.parametrize("df", [1.0, 2.0, 3.3, 12.0, 300.0])
@pytest.mark.parametrize(("seed", "prompt"), [(1.0, 0.0), (1.0, 1.0), (0.1, 1.0)])
@pytest.mark.parametrize("t", [0.5, 3.0, 6.0])
def test_p_is_the_integral_of_its_definition(
    df: float, seed: float, prompt: float, t: float
) -> None:
    """Adaptive quadrature over the density of W, to five digits, far into the tail."""
    spread = (prompt + 0.1) ** 2 / 199

    def integrand(x: float) -> float:
        w = np.exp(x)
        variance = seed / w + prompt
        tail = 2 * stats.t.sf(t * np.sqrt((seed + prompt) / variance), variance**2 / spread)
        return float(stats.chi2.pdf(w * df, df) * df * w * tail)

    expected, _ = integrate.quad(integrand, -60, 6, points=[-5, 0], limit=500, epsabs=1e-13)
    parts = Parts(*(np.asarray(float(v)) for v in (seed, df, prompt, spread)))
    assert behrens_fisher_p(np.asarray(t), parts) == pytest.approx(expected, rel=1e-5)


def test_seed_noise_alone_is_students_t() -> None:
    """B = 0 and its spread 0: the sum of two t variables has one term left."""
    parts = Parts(*(np.asarray(v) for v in (2.0, 5.0, 0.0, 0.0)))
    assert behrens_fisher_p(np.asarray(2.5), parts) == pytest.approx(2 * stats.t.sf(2.5, 5))


@pytest.mark.parametrize("n_seeds", [3, 6])
def test_a_family_of_one_is_behrens_and_fisher(n_seeds: int) -> None:
    """Against Monte Carlo of the sum of t with S - 1 and (about) P - 1 degrees of freedom.

    400 000 draws: 4 standard errors are below 0.002. The p alone adds its mean up in another order
    than the interval: in float64, 300 numbers three times as large as their mean, and a p that
    moves by some t^2 < 10 times as much, are within 300 x 3 x 10 x 1e-16 < 1e-12.
    """
    d = arms(1, 1, n_seeds)[0] + 0.5
    squares = mean_squares(d)
    rng = np.random.default_rng(2)
    prompt = float(squares.prompt - squares.residual)
    spread = float(squares.prompt) ** 2 / 49 + float(squares.residual) ** 2 / (49 * (n_seeds - 1))
    seed = max(float(squares.seed), float(squares.residual))
    total = rng.standard_t(n_seeds - 1, 400_000) * seed**0.5
    total += rng.standard_t(prompt**2 / spread, 400_000) * prompt**0.5
    expected = np.mean(np.abs(total) > abs(d.mean()) * d.size**0.5)
    assert 0.01 < expected < 0.5
    got = moderated_interval(d, seed_noise([d]))
    assert got.p_value == pytest.approx(expected, abs=0.002)
    assert got.p_value == moderated_interval(d, UNKNOWN).p_value
    assert got.p_value == pytest.approx(moderated_p(d, UNKNOWN), rel=1e-12)


def test_parts_by_hand() -> None:
    """[[1, 2], [3, 6]] with the family's ratio 4 on 6 degrees of freedom.

    The family says 4 x MSe = 4, the excess is 9 - 4 = 5: A = 9, d = 81 / (16/6 + 25/1).
    B = 4 - 1 = 3, its spread 16/1 + 1/1. V = 12, se = sqrt(12/4). Shares: (9 - 1, 3, 1) / 12.
    """
    noise = SeedNoise(4.0, 6.0)
    parts = moderate(mean_squares(LITTLE), noise.ratio, noise.df, 2, 2)
    assert [float(p) for p in parts] == pytest.approx([9, 81 / (16 / 6 + 25), 3, 17])
    got = moderated_interval(LITTLE, noise)
    assert (got.mean, got.se) == pytest.approx((3, 3**0.5))
    assert (got.share_seed, got.share_prompt, got.share_residual) == pytest.approx(
        (8 / 12, 3 / 12, 1 / 12)
    )
    assert got.df == pytest.approx(144 / (81 / parts.seed_df + 17))


def test_a_quiet_comparison_takes_the_familys_noise() -> None:
    """The family's ratio 20 on 6 degrees of freedom: A = 20, known as well as the family is."""
    parts = moderate(mean_squares(LITTLE), 20.0, 6.0, 2, 2)
    assert (parts.seed, parts.seed_df) == pytest.approx((20, 6))
    quiet = moderate(mean_squares(np.array([[1.0, 6.0], [2.0, 5.0]])), 0.0, 1.0, 2, 2)
    assert (quiet.seed, quiet.seed_df) == pytest.approx((1, 1))  # MSs = 0, never below MSe = 1


def test_seed_noise_of_unrelated_comparisons_adds_up() -> None:
    """No shared arm: 3 comparisons with S - 1 = 3 are worth nearly 9 degrees of freedom."""
    family = arms(4, n_prompts=400)
    ratios = [float(m.seed / m.residual) for m in map(mean_squares, family)]
    noise = seed_noise(family)
    assert noise.ratio == pytest.approx(np.mean(ratios))
    assert noise.df == pytest.approx(9, rel=0.02)


def test_seed_noise_counts_shared_arms_once() -> None:
    """b - a and c - a have correlation 1/2: 3 x 4 / (2 + 2/4) = 4.8; the same twice counts once."""
    a, b, c = arms(5, n_prompts=2000)
    assert seed_noise([b - a, c - a]).df == pytest.approx(4.8, rel=0.05)
    assert seed_noise([b - a, a - b]).df == pytest.approx(3)
    assert seed_noise([b - a]) == SeedNoise(
        pytest.approx(float(mean_squares(b - a).seed / mean_squares(b - a).residual)),
        pytest.approx(3),
    )


def test_seed_noise_weighs_by_seeds_and_passes_over_what_tells_nothing() -> None:
    """A comparison that lost two of four runs counts a third; one run and equal cells nothing."""
    a, b, c = arms(6)
    holed = b.copy()
    holed[2:] = np.nan
    one = c.copy()
    one[1:] = np.nan
    ratios = [float(m.seed / m.residual) for m in map(mean_squares, (a, b[:2]))]
    noise = seed_noise([a, holed, one, np.zeros_like(a)])
    assert noise.ratio == pytest.approx((3 * ratios[0] + ratios[1]) / 4)
    assert 1 < noise.df < 4
    assert seed_noise([one]) == seed_noise([]) == UNKNOWN


def test_seed_noise_refuses_other_prompts() -> None:
    """Correlations need the same cells."""
    with pytest.raises(ValueError, match="over the same seeds and prompts"):
        seed_noise([np.eye(3), np.eye(4)])


def test_one_run_and_equal_cells_are_as_without_a_family() -> None:
    """There is nothing to moderate."""
    noise = SeedNoise(5.0, 10.0)
    for d in (arms(7)[0][:1], np.full((3, 4), 0.2)):
        assert moderated_interval(d, noise) == crossed_interval(d)
    assert moderated_p(np.zeros((3, 4)), noise) == 1
    assert moderated_p(np.full((3, 4), 0.2), noise) == 0


def test_missing_cells_are_dropped_and_counted() -> None:
    """As in the crossed interval."""
    d = arms(8)[0]
    holed = d.copy()
    holed[1, 3] = np.nan
    got = moderated_interval(holed, UNKNOWN)
    whole = moderated_interval(np.delete(d, 3, axis=1), UNKNOWN)
    assert (got.low, got.high) == pytest.approx((whole.low, whole.high))
    assert (got.n_missing, got.dropped_prompts, got.missing_share) == (1, 1, 1 / 200)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-1, 1), st.floats(0.5, 0.99))
def test_interval_and_p_agree(seed: int, shift: float, confidence: float) -> None:
    """0 is outside just where p is below 1 - confidence; -d mirrors; a shift moves the bounds."""
    family = arms(seed, 3)
    noise = seed_noise(family)
    d = family[0] + shift
    got = moderated_interval(d, noise, confidence)
    assert (got.p_value < 1 - confidence) == (got.low > 0 or got.high < 0)
    mirrored = moderated_interval(-d, noise, confidence)
    assert (mirrored.low, mirrored.high) == pytest.approx((-got.high, -got.low))
    moved = moderated_interval(d + 3, noise, confidence)
    assert (moved.low, moved.high) == pytest.approx((got.low + 3, got.high + 3))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 20))
def test_noise_of_the_family_never_shortens_the_standard_error(seed: int, ratio: float) -> None:
    """A comparison may be noisier than its family, and never counts as quieter."""
    d = arms(seed, 1)[0]
    own = crossed_interval(d)
    got = moderated_interval(d, SeedNoise(ratio, 12.0))
    assert got.se >= own.se * (1 - 1e-12)
    assert got.share_seed + got.share_prompt + got.share_residual == pytest.approx(1)


@pytest.mark.parametrize("confidence", [0.0, 95.0])
def test_bad_confidence(confidence: float) -> None:
    """Percent instead of a fraction."""
    with pytest.raises(ValueError, match=r"write 95 % as 0\.95"):
        moderated_interval(LITTLE, UNKNOWN, confidence)
