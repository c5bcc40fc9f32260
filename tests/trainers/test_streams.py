"""Seeds, and the stream of training examples made from them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.seeds import derive, numpy_generator
from trainers.streams import Draws, Stream

SHAPE = (2, 3, 3)
FIELDS = ("rows", "uniform", "noise", "posterior", "drop", "image", "positions")


@pytest.mark.parametrize(
    ("base", "axes", "golden"),
    [
        (0, (), 3456079177858693020),
        (7, ("noise", 12), 7504674512731648761),
        (7, ("noise", "12"), 8339007389608955107),
        (-3, ("caption dropout", 0), 3475076416492191699),
        (7, ("größe",), 4153989753371667389),
    ],
)
def test_derive_golden(base: int, axes: tuple[str | int, ...], golden: int) -> None:
    """The first 63 bits of sha256 over base and ``type:value`` of each axis, joined by U+001F.

    The second is ``printf '7\\x1fstr:noise\\x1fint:12' | sha256sum``, its first 16 digits halved.
    Committed: a change of these numbers silently changes every run.
    """
    assert derive(base, *axes) == golden


@pytest.mark.parametrize("axis", [1.0, True, None, ("a",), b"a", np.float32(1), np.int64(1)])
def test_derive_refuses_unstable_axes(axis: Any) -> None:
    """A float's text is not stable, and True would be taken for 1."""
    with pytest.raises(TypeError, match="must be str or int"):
        derive(0, "ok", axis)


def test_derive_tells_axes_apart() -> None:
    """Where one axis ends, its type, its place and the base all count."""
    axes: list[tuple[str | int, ...]] = [
        (), ("a",), ("a", 1), ("a1",), ("a", "1"), (1, "a"), ("a", 11), ("a", 1, 1), (1,), ("1",)
    ]  # fmt: skip
    seeds = {derive(base, *a) for a in axes for base in (0, 1, -1, 11)}
    assert len(seeds) == 4 * len(axes)


@given(st.integers(), st.lists(st.one_of(st.text("ab1:"), st.integers()), max_size=3))
def test_derive_fits_every_generator(base: int, axes: list[str | int]) -> None:
    """Non-negative and below 2^63, so that torch takes it as a signed integer."""
    assert 0 <= derive(base, *axes) < 2**63


def test_numpy_generator() -> None:
    """The same numbers for the same axes, whatever was drawn elsewhere."""
    first = numpy_generator(3, "order", 0)
    first.random(5)
    np.testing.assert_array_equal(
        numpy_generator(3, "order", 1).random(4), numpy_generator(3, "order", 1).random(4)
    )
    assert first.random() != numpy_generator(3, "order", 1).random()


def same(one: Draws, other: Draws) -> bool:
    """Whether all draws agree to the bit."""
    return all(torch.equal(getattr(one, f), getattr(other, f)) for f in FIELDS)


def joined(parts: list[Draws]) -> Draws:
    """Draws of neighbouring positions as one."""
    along = {"posterior": 1}
    return Draws(**{f: torch.cat([getattr(p, f) for p in parts], along.get(f, 0)) for f in FIELDS})


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 30), st.randoms())
def test_draws_depend_on_their_position_alone(sizes: list[int], first: int, random: Any) -> None:
    """However the positions are cut into batches, and in whatever order these are asked for."""
    whole = Stream(5, 9, SHAPE).at(first, sum(sizes))
    starts = [first + sum(sizes[:i]) for i in range(len(sizes))]
    order = list(range(len(sizes)))
    random.shuffle(order)
    stream = Stream(5, 9, SHAPE)
    parts = {i: stream.at(starts[i], sizes[i]) for i in order}
    assert same(joined([parts[i] for i in range(len(sizes))]), whole)


def test_every_epoch_is_a_permutation() -> None:
    """Each pair once an epoch; the epochs, and the seeds, in orders of their own."""
    size = 50
    epochs = Stream(1, size, (1,)).at(0, 4 * size).rows.view(4, size)
    assert torch.equal(epochs.sort(1).values, torch.arange(size).expand(4, size))
    other = Stream(2, size, (1,)).at(0, size).rows
    orders = {tuple(e.tolist()) for e in (*epochs, other, torch.arange(size))}
    assert len(orders) == 6


def test_seeds_differ_in_everything() -> None:
    """Nothing is shared between two training seeds."""
    one, other = Stream(1, 40, SHAPE).at(0, 40), Stream(2, 40, SHAPE).at(0, 40)
    assert not torch.equal(one.rows, other.rows)
    for field in ("uniform", "noise", "posterior", "drop"):
        assert not (getattr(one, field) == getattr(other, field)).any()


def test_uniform_draws_are_uniform_and_their_axes_independent() -> None:
    """Of 4000 draws, by the normal approximation at 4 sigma.

    A mean within 4 / sqrt(12 n) of 1/2, tenths within 4 sqrt(0.09 n) of n / 10, and correlations
    (timestep with dropout, each with its successor, with the next seed) within 4 / sqrt(n) of 0.
    """
    n = 4000
    draws, other = Stream(3, n, (1,)).at(0, n), Stream(4, n, (1,)).at(0, n)
    for values in (draws.uniform, draws.drop):
        assert values.dtype == torch.float64
        assert 0 <= values.min().item() < values.max().item() < 1
        assert values.mean().item() == pytest.approx(0.5, abs=4 / (12 * n) ** 0.5)
        tenths = torch.bincount((values * 10).long(), minlength=10).tolist()
        assert tenths == pytest.approx([n / 10] * 10, abs=4 * (0.09 * n) ** 0.5)
    against = [
        (draws.uniform, draws.drop),
        (draws.uniform[1:], draws.uniform[:-1]),
        (draws.uniform[1:], draws.drop[:-1]),
        (draws.uniform, other.uniform),
        (draws.uniform, draws.noise[:, 0].double()),
        (draws.uniform, draws.rows.double()),
        (draws.drop, draws.posterior[0, :, 0].double()),
    ]
    for a, b in against:
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1].item()) < 4 / n**0.5


def test_noises_are_standard_normal_and_their_own() -> None:
    """One noise and two posterior noises a pair: unit normal, pairwise uncorrelated (4 sigma)."""
    n = 500
    draws = Stream(3, n, SHAPE).at(0, n)
    assert draws.noise.shape == (n, *SHAPE)
    assert draws.posterior.shape == (2, n, *SHAPE)
    flat = torch.stack([draws.noise.flatten(), *draws.posterior.flatten(1)]).double()
    count = flat.shape[1]
    assert flat.mean(1).tolist() == pytest.approx([0] * 3, abs=4 / count**0.5)
    assert flat.var(1).tolist() == pytest.approx([1] * 3, abs=4 * (2 / count) ** 0.5)
    off_diagonal = (torch.corrcoef(flat) - torch.eye(3)).abs().max().item()
    assert off_diagonal < 4 / count**0.5


def test_gate_draws_are_their_own() -> None:
    """They repeat for a step, differ between steps, and are not those of the training."""
    stream = Stream(3, 20, SHAPE)
    (uniform, noise), (again, _), (later, later_noise) = (stream.gate(s, 4) for s in (2, 2, 3))
    assert (uniform.shape, noise.shape) == ((4,), (4, *SHAPE))
    assert torch.equal(uniform, again)
    assert not (uniform == later).any()
    assert not (noise == later_noise).any()
    training = stream.at(0, 20)
    assert not torch.isin(uniform, training.uniform).any()
    assert not torch.isin(noise, torch.cat([training.noise, *training.posterior])).any()


def test_arms_share_their_draws(
    configure: Callable[..., TrainConfig], backbone: StableDiffusion, latents: Pairs
) -> None:
    """Whatever the component, the example, noises and draws are those of the seed.

    Only the law turns the shared uniform draw into a timestep of its own.
    """
    arms: list[dict[str, Any]] = [
        {},
        {"objective": {"name": "sft"}},
        {"reference": {"name": "hard-copy", "tau": 2}, "optimizer": {"lr": 0.5}},
        {"timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}}},
        {"batch_size": 6, "accumulation": 3, "steps": 99, "caption_dropout": 0.5},
    ]
    drawn = [Trainer(configure(**arm), backbone, latents).stream.at(3, 5) for arm in arms]
    assert all(same(drawn[0], other) for other in drawn[1:])
    assert not same(drawn[0], Trainer(configure(seed=8), backbone, latents).stream.at(3, 5))
