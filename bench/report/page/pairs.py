"""Pairs of images: how they differ by each reward, and which stand out of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.report.figures.source import Source
from bench.report.numbers import number, scale, signed
from bench.report.page.pictures import Picture, Pictures
from bench.results.analysis import Array
from bench.results.protocol import Comparison

OUTSTANDING = 3
"""Pairs of each kind that a comparison shows, of as many prompts."""
Place = tuple[int, int, int]
"""Of a pair: training seed, prompt and number of the image."""


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
    heads: tuple[str, str]
    """What both sides are called."""
    wins: tuple[Pair, ...]
    losses: tuple[Pair, ...]
    disagreements: tuple[Pair, ...]
    """Where rewards take different sides most; none if there is one reward."""


def gains(source: Source, comparison: Comparison) -> dict[str, Array]:
    """Differences ``[S, P, K]`` of a comparison by reward, above 0 where *on* is better."""
    return {
        reward: _sum(arms, comparison.on) - _sum(arms, comparison.off)
        for reward, arms in source.scores.items()
    }


def signs(source: Source) -> dict[str, int]:
    """-1 for rewards of which less is better: what undoes the sign of the source's scores."""
    return {r.name: 1 if r.direction == "higher" else -1 for r in source.results.protocol.rewards}


def text(value: float, like: float, sign: bool = False) -> str:
    """A score or, with its sign, a difference."""
    if np.isnan(value):
        return "missing"
    return signed(value, like) if sign else number(value, like)


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


class Duels:
    """The pairs of one comparison."""

    def __init__(self, source: Source, pictures: Pictures, comparison: Comparison) -> None:
        """Of a result folder, with the pictures that are on the page."""
        self._source, self._pictures, self._comparison = source, pictures, comparison
        self._protocol = source.results.protocol
        self._arms = {arm.name: arm for arm in self._protocol.all_arms()}
        self._gains = gains(source, comparison)
        self._signs = signs(source)
        self._like = {reward: scale(source.results, reward) for reward in self._gains}

    def outstanding(self) -> Outstanding:
        """What stands out; of pairs whose pictures are there, if any are."""
        own = self._shown(self._gains[self._protocol.primary])
        apart = np.where(np.isnan(own), np.nan, disagreement(self._gains))
        won, lost = np.where(own > 0, own, np.nan), np.where(own < 0, -own, np.nan)
        found = (tuple(map(self._pair, _largest(key))) for key in (won, lost, apart))
        on, off = self._comparison.on, self._comparison.off
        return Outstanding(self._comparison, (" + ".join(on), " + ".join(off)), *found)

    def _shown(self, own: Array) -> Array:
        """The differences, NaN where a picture is missing, unless all are."""
        seen = np.ones(own.shape, bool)
        for name in (*self._comparison.on, *self._comparison.off):
            seen &= self._pictures.present(self._arms[name])
        return np.where(seen, own, np.nan) if seen.any() else own

    def _pair(self, place: Place) -> Pair:
        s, p, k = place
        on, off = self._comparison.on, self._comparison.off
        prompt, primary = self._protocol.prompts.ids[p], self._protocol.primary
        seeds = {name: self._seed(name, s) for name in (*on, *off)}
        sides = (Side(n, self._pictures.get(n, seed, prompt, k)) for n, seed in seeds.items())
        rows = (
            (reward, self._score(reward, on, place), self._score(reward, off, place),
             self._difference(reward, place))
            for reward in self._gains
        )  # fmt: skip
        told = [
            f"training seed {seed}" for seed in dict.fromkeys(seeds.values()) if seed is not None
        ]
        told += [f"image {k + 1}"] if self._protocol.images.per_prompt > 1 else []
        words = ", ".join([*told, self._difference(primary, place)])
        return Pair(self._pictures.prompt(prompt), words, tuple(sides), tuple(rows))

    def _seed(self, name: str, s: int) -> int | None:
        seeds = self._arms[name].seeds
        return seeds[s if len(seeds) > 1 else 0]

    def _score(self, reward: str, names: tuple[str, ...], place: Place) -> str:
        s, p, k = place
        scores = (self._source.scores[reward][name] for name in names)
        value = sum(float(each[s if len(each) > 1 else 0, p, k]) for each in scores)
        return text(self._signs[reward] * value, self._like[reward])

    def _difference(self, reward: str, place: Place) -> str:
        return text(float(self._gains[reward][place]), self._like[reward], sign=True)


def _largest(key: Array) -> list[Place]:
    """Places of the largest values, one of each prompt, NaN never."""
    by_prompt = np.where(np.isnan(key), -np.inf, key).transpose(1, 0, 2).reshape(key.shape[1], -1)
    best = by_prompt.max(axis=1)
    order = [p for p in np.argsort(-best, kind="stable") if np.isfinite(best[p])]
    places = []
    for p in order[:OUTSTANDING]:
        s, k = np.unravel_index(by_prompt[p].argmax(), (key.shape[0], key.shape[2]))
        places.append((int(s), int(p), int(k)))
    return places
