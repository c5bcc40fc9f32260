"""Pairs of images as a page shows them: how they differ by each reward, and which stand out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.report.numbers import number, scale, signed
from bench.report.page.pictures import Picture, Pictures
from bench.results.analysis import Array, Cubes, Results
from bench.results.protocol import Comparison, Protocol

OUTSTANDING = 3
"""Pairs of each kind that a comparison shows, of as many prompts."""
COMPARISONS = 40
"""Comparisons of which a page shows what stands out, the first ones."""
SCORES = 400_000
"""Scores that a page holds for its browser: about 2 MB."""


@dataclass(frozen=True)
class Side:
    """One image of a pair."""

    arm: str
    picture: Picture | None
    """None if it is not on the page."""


@dataclass(frozen=True)
class Pair:
    """Two images of one prompt and noise; of an interaction, four."""

    prompt: str
    told: str
    """Training seed, number of the image, and the difference by the primary reward."""
    sides: tuple[Side, ...]
    """Those that count for the comparison first."""
    scores: tuple[tuple[str, str, str, str], ...]
    """Of each reward: its name, the scores of both sides, and their difference, better above 0."""


@dataclass(frozen=True)
class Outstanding:
    """What stands out of one comparison."""

    comparison: Comparison
    wins: tuple[Pair, ...]
    losses: tuple[Pair, ...]
    disagreements: tuple[Pair, ...]
    """Where rewards take different sides most; none if there is one reward."""


def gains(cubes: Cubes, comparison: Comparison, protocol: Protocol) -> dict[str, Array]:
    """Differences ``[S, P, K]`` of a comparison by reward, above 0 where *on* is better."""
    signs = {r.name: 1.0 if r.direction == "higher" else -1.0 for r in protocol.rewards}
    return {
        reward: signs[reward] * (_sum(arms, comparison.on) - _sum(arms, comparison.off))
        for reward, arms in cubes.items()
    }


def heads(comparison: Comparison) -> tuple[str, str]:
    """What both sides of a comparison are called."""
    return " + ".join(comparison.on), " + ".join(comparison.off)


def _sum(arms: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    first, *others = (arms[name] for name in names)
    return sum(others, start=first)


def spreads(found: Mapping[str, Array]) -> dict[str, float]:
    """Standard deviation of each reward's differences; 1 where there is none to divide by."""
    kept = {reward: d[~np.isnan(d)] for reward, d in found.items()}
    return {reward: float(d.std()) if d.size and d.std() > 0 else 1.0 for reward, d in kept.items()}


def disagreement(found: Mapping[str, Array]) -> Array:
    """How far rewards stand apart over each pair ``[S, P, K]``; NaN where none disagree.

    The largest difference less the smallest, each in standard deviations of its reward, where one
    is above 0 and the other below.
    """
    spread = spreads(found)
    scaled = np.stack([d / spread[reward] for reward, d in found.items()])
    high, low = np.fmax.reduce(scaled), np.fmin.reduce(scaled)
    return np.where((high > 0) & (low < 0), high - low, np.nan)


def outstanding(results: Results, cubes: Cubes, pictures: Pictures) -> Iterator[Outstanding]:
    """What stands out of the first comparisons; of pairs whose pictures are there, if any are."""
    for comparison in results.protocol.comparisons[:COMPARISONS]:
        found = gains(cubes, comparison, results.protocol)
        own = _shown(found[results.protocol.primary], comparison, results.protocol, pictures)
        apart = np.where(np.isnan(own), np.nan, disagreement(found))

        def pairs(
            key: Array, comparison: Comparison = comparison, found: Mapping[str, Array] = found
        ) -> tuple[Pair, ...]:
            places = _largest(key)
            return tuple(_pair(results, cubes, comparison, found, p, pictures) for p in places)

        yield Outstanding(
            comparison,
            pairs(np.where(own > 0, own, np.nan)),
            pairs(np.where(own < 0, -own, np.nan)),
            pairs(apart),
        )


def _shown(own: Array, comparison: Comparison, protocol: Protocol, pictures: Pictures) -> Array:
    """The differences, NaN where a picture is missing, unless all are."""
    arms = {arm.name: arm for arm in protocol.all_arms()}
    seen = np.ones(own.shape, bool)
    for name in (*comparison.on, *comparison.off):
        seen &= pictures.present(arms[name])
    return np.where(seen, own, np.nan) if seen.any() else own


def _largest(key: Array) -> list[tuple[int, int, int]]:
    """Places ``(s, p, k)`` of the largest values, one of each prompt, NaN never."""
    by_prompt = np.where(np.isnan(key), -np.inf, key).transpose(1, 0, 2).reshape(key.shape[1], -1)
    best = by_prompt.max(axis=1)
    order = [p for p in np.argsort(-best, kind="stable") if np.isfinite(best[p])]
    places = []
    for p in order[:OUTSTANDING]:
        s, k = np.unravel_index(by_prompt[p].argmax(), (key.shape[0], key.shape[2]))
        places.append((int(s), int(p), int(k)))
    return places


def _pair(
    results: Results,
    cubes: Cubes,
    comparison: Comparison,
    found: Mapping[str, Array],
    place: tuple[int, int, int],
    pictures: Pictures,
) -> Pair:
    s, p, k = place
    protocol = results.protocol
    arms = {arm.name: arm for arm in protocol.all_arms()}
    prompt = protocol.prompts.ids[p]
    like = {reward: scale(results, reward) for reward in found}

    def seed(name: str) -> int | None:
        return arms[name].seeds[s if len(arms[name].seeds) > 1 else 0]

    def side(names: tuple[str, ...]) -> tuple[Side, ...]:
        return tuple(Side(n, pictures.get(n, seed(n), prompt, k)) for n in names)

    def score(reward: str, names: tuple[str, ...]) -> str:
        value = _sum(cubes[reward], names)
        return _text(float(value[s if len(value) > 1 else 0, p, k]), like[reward])

    rows = tuple(
        (
            reward,
            score(reward, comparison.on),
            score(reward, comparison.off),
            _text(float(d[place]), like[reward], sign=True),
        )
        for reward, d in found.items()
    )
    seeds = [seed(name) for name in (*comparison.on, *comparison.off)]
    own = _text(float(found[protocol.primary][place]), like[protocol.primary], sign=True)
    told = [f"training seed {s}" for s in dict.fromkeys(seeds) if s is not None]
    told += [f"image {k + 1}"] if protocol.images.per_prompt > 1 else []
    sides = (*side(comparison.on), *side(comparison.off))
    return Pair(pictures.prompt(prompt), ", ".join([*told, own]), sides, rows)


def _text(value: float, like: float, sign: bool = False) -> str:
    if np.isnan(value):
        return "missing"
    return signed(value, like) if sign else number(value, like)


def browsed(results: Results, cubes: Cubes, pictures: Pictures, scores: int) -> dict[str, Any]:
    """What the page's script browses: scores as whole numbers, of as many prompts as fit.

    Args:
        results: What was found.
        cubes: All scores.
        pictures: Pictures that are on the page.
        scores: How many may be given.
    """
    protocol = results.protocol
    named = {name for c in protocol.comparisons for name in (*c.on, *c.off)}
    arms = [a for a in protocol.all_arms() if a in protocol.arms or a.name in named]
    places = {arm.name: place for place, arm in enumerate(arms)}
    each = protocol.images.per_prompt * len(cubes) * sum(len(arm.seeds) for arm in arms)
    kept = max(1, min(len(protocol.prompts.ids), scores // each))
    digits = {r: len(number(0.0, scale(results, r)).partition(".")[2]) for r in cubes}
    ids = protocol.prompts.ids[:kept]
    return {
        "arms": [{"name": arm.name, "seeds": arm.seeds} for arm in arms],
        "comparisons": [
            {
                "name": c.name,
                "on": [places[name] for name in c.on],
                "off": [places[name] for name in c.off],
                "spreads": [*spreads(gains(cubes, c, protocol)).values()],
            }
            for c in protocol.comparisons
        ],
        "rewards": [
            {"name": r.name, "sign": 1 if r.direction == "higher" else -1, "digits": digits[r.name]}
            for r in protocol.rewards
        ],
        "primary": [r.name for r in protocol.rewards].index(protocol.primary),
        "tie": protocol.statistics.tie,
        "images": protocol.images.per_prompt,
        "prompts": [pictures.prompt(prompt) for prompt in ids],
        "scores": [
            [_whole(cubes[r.name][arm.name][:, :kept], digits[r.name]) for arm in arms]
            for r in protocol.rewards
        ],
        "pictures": [pictures.numbers(arm, ids) for arm in arms],
    }


def _whole(cube: Array, digits: int) -> list[int | None]:
    """Scores in order of seed, prompt and image, times ``10 ** digits``; None where missing."""
    flat = np.round(cube.ravel() * 10**digits)
    return [None if np.isnan(value) else int(value) for value in flat]
