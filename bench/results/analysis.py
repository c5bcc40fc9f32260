"""From per-image scores to results: what was declared, computed, and nothing else.

The input is a tidy table with one row per image and reward, and the protocol; the output is plain
data. Nothing here reads the clock, the machine or a random state of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.results.protocol import Comparison, Protocol

Array = NDArray[np.float64]
Cubes = dict[str, dict[str, Array]]
"""Scores ``[S, P, K]`` by reward and arm, NaN where one is missing."""
Places = NDArray[np.intp]
BOOTSTRAP_SEED = 12345


@dataclass(frozen=True)
class Contrast:
    """One comparison on one reward. Differences are signed so that positive is better."""

    interval: stats.Interval
    """Seed noise is that of all comparisons on this reward; not adjusted for their number."""
    of_gain: stats.ShareOfGain | None
    """The difference as a share of the gain; None for the gain, or where it is not established."""
    wins: stats.WinRate
    dz: float | None
    bootstrap: tuple[float, float] | None
    """Of the primary reward alone."""
    seed_effects: tuple[float, ...]
    """Mean difference of each training seed."""


@dataclass(frozen=True)
class Finding:
    """What came of a declared comparison, with its verdict on the primary reward."""

    comparison: Comparison
    contrasts: dict[str, Contrast | None]
    """By reward; None where too little is left to compare."""
    p_adjusted: float | None
    verdict: stats.VerdictWord
    reason: str


@dataclass(frozen=True)
class Results:
    """Everything a table shows."""

    protocol: Protocol
    means: dict[str, dict[str, stats.Interval | None]]
    """Mean score by arm and reward, as it was scored; None where too little is there."""
    against_base: dict[str, stats.WinRate | None]
    """Win rate of every trained arm against the base model on the primary reward."""
    missing: dict[str, int]
    """Missing or non-finite scores by reward, over all arms."""
    expected: int
    """Scores that each reward should have."""
    comparisons: tuple[Finding, ...]
    """What came of each declared one."""
    image_noise: dict[str, stats.ImageNoise | None]
    """The control base against base under other image noise, by reward."""
    training_noise: dict[str, stats.TrainingNoise | None]
    """The control of each trained arm against itself under another training seed, on the primary
    reward, without its single pairs; None for an arm of one run."""


def analyse(scores: pd.DataFrame, protocol: Protocol) -> Results:
    """Analyse per-image scores.

    Args:
        scores: Columns arm, train_seed, prompt_id, k, reward, score, as in the
            files of :mod:`bench.results.files`.
        protocol: The declared analysis.
    """
    cubes = score_cubes(scores, protocol)
    own = cubes[protocol.primary]
    base, *trained = protocol.arms
    every = protocol.all_arms()
    return Results(
        protocol=protocol,
        means={
            arm.name: {reward: _mean(cubes[reward][arm.name]) for reward in cubes}
            for arm in protocol.arms
        },
        against_base={
            arm.name: _wins(*both_sides(own, (arm.name,), (base.name,), protocol, protocol.primary),
                            protocol)
            for arm in trained
        },
        missing={
            reward: int(sum(np.isnan(cubes[reward][arm.name]).sum() for arm in every))
            for reward in cubes
        },
        expected=sum(len(arm.seeds) for arm in every)
        * len(protocol.prompts.ids)
        * protocol.images.per_prompt,
        comparisons=_findings(cubes, protocol),
        image_noise={reward: _image_noise(cubes[reward], protocol) for reward in cubes},
        training_noise={arm.name: _training_noise(own[arm.name]) for arm in trained},
    )  # fmt: skip


def differences(scores: pd.DataFrame, protocol: Protocol) -> list[Array | None]:
    """Differences ``[S, P]`` of every comparison on the primary reward; None of too little."""
    return _family(score_cubes(scores, protocol), protocol, protocol.primary)[1]


def signed_scores(scores: pd.DataFrame, protocol: Protocol) -> dict[str, dict[str, Array]]:
    """Scores ``[S, P, K]`` by reward and arm, higher being better, NaN where one is missing."""
    cubes = score_cubes(scores, protocol)
    lower = {reward.name for reward in protocol.rewards if reward.direction == "lower"}
    return {
        reward: {arm: -cube if reward in lower else cube for arm, cube in of_arms.items()}
        for reward, of_arms in cubes.items()
    }


def _family(
    cubes: dict[str, dict[str, Array]], protocol: Protocol, reward: str
) -> tuple[list[tuple[Array, Array]], list[Array | None]]:
    """Both sides of every comparison on a reward, and their differences."""
    sides = [both_sides(cubes[reward], c.on, c.off, protocol, reward) for c in protocol.comparisons]
    found = [stats.paired_differences(high, low) for high, low in sides]
    return sides, [d if complete(d) else None for d in found]


def score_cubes(scores: pd.DataFrame, protocol: Protocol) -> Cubes:
    """Scores ``[S, P, K]`` by reward and arm, NaN where one is missing.

    Seeds are in the order of the arm, prompts in that of the protocol. Rows of other arms, seeds,
    prompts and rewards are left out.
    """
    ids, images = protocol.prompts.ids, protocol.images.per_prompt
    arms = {arm.name: arm.seeds for arm in protocol.all_arms()}
    rows = [(arm, seed) for arm, seeds in arms.items() for seed in seeds]
    cubes = np.full((len(protocol.rewards), len(rows), len(ids), images), np.nan)
    reward = _numbers(scores["reward"], [r.name for r in protocol.rewards])
    run = _runs(scores, rows)
    prompt, k = _numbers(scores["prompt_id"], ids), scores["k"].to_numpy(np.intp) % images
    known = (reward >= 0) & (run >= 0) & (prompt >= 0)
    value = pd.to_numeric(scores["score"]).to_numpy(np.float64, na_value=np.nan)
    value = np.where(np.isfinite(value), value, np.nan)
    cubes[tuple(each[known] for each in (reward, run, prompt, k))] = value[known]
    ends = np.cumsum([len(seeds) for seeds in arms.values()])[:-1]
    return {
        r.name: dict(zip(arms, np.split(cube, ends), strict=True))
        for r, cube in zip(protocol.rewards, cubes, strict=True)
    }


def _numbers(column: "pd.Series[Any]", names: Sequence[str | int | None]) -> Places:
    """Which of some names each row has; -1 for none of them."""
    found = column.astype("category").cat
    number = {name: n for n, name in enumerate(names)}
    places = [*(number.get(name, -1) for name in found.categories), number.get(None, -1)]
    return np.array(places, dtype=np.intp)[found.codes]


def _runs(scores: pd.DataFrame, runs: Sequence[tuple[str, int | None]]) -> Places:
    """Which run each score is of, by arm and training seed; -1 for none of them."""
    arms, seeds = ([*dict.fromkeys(each)] for each in zip(*runs, strict=True))
    numbers = {run: number for number, run in enumerate(runs)}
    places = np.full((len(arms) + 1, len(seeds) + 1), -1, dtype=np.intp)
    places[:-1, :-1] = [[numbers.get((arm, seed), -1) for seed in seeds] for arm in arms]
    return places[_numbers(scores["arm"], arms), _numbers(scores["train_seed"], seeds)]


def complete(d: Array, seeds: int = 1) -> bool:
    """Whether so many training seeds and two prompts are left of differences ``[S, P]``."""
    kept = d[~np.isnan(d).all(axis=1)]
    return len(kept) >= seeds and int((~np.isnan(kept).any(axis=0)).sum()) >= 2


def _mean(cube: Array) -> stats.Interval | None:
    flat = stats.paired_differences(cube, np.zeros_like(cube))
    return stats.crossed_interval(flat) if complete(flat) else None


def both_sides(
    cubes: dict[str, Array], on: Sequence[str], off: Sequence[str], protocol: Protocol, reward: str
) -> tuple[Array, Array]:
    """Scores ``[S, P, K]`` that count for a comparison and against it, higher being better."""
    direction = {r.name: r.direction for r in protocol.rewards}[reward]
    sign = 1.0 if direction == "higher" else -1.0
    high, low = (sum(sign * cubes[arm] for arm in arms) for arms in (on, off))
    first, second = np.broadcast_arrays(high, low)
    return first, second


def _wins(high: Array, low: Array, protocol: Protocol) -> stats.WinRate | None:
    if not complete(stats.paired_differences(high, low)):
        return None
    return stats.win_rate(high, low, eps=protocol.statistics.tie)


def _findings(cubes: dict[str, dict[str, Array]], protocol: Protocol) -> tuple[Finding, ...]:
    """The contrasts of each reward, and the verdicts on the primary one."""
    declared, primary = protocol.statistics, protocol.primary
    names = [comparison.name for comparison in protocol.comparisons]
    gain = None if declared.gain is None else names.index(declared.gain)
    by_reward = {reward: _family(cubes, protocol, reward) for reward in cubes}
    sides, judged_on = by_reward[primary]
    said = stats.judge(
        judged_on,
        [missing_share(high, low) for high, low in sides],
        gain=gain,
        share=declared.share,
        bound=declared.bound,
        alpha=declared.alpha,
    )
    contrasts = {
        reward: _contrasts(*of_reward, protocol, gain, reward == primary)
        for reward, of_reward in by_reward.items()
    }
    return tuple(
        Finding(
            comparison,
            {reward: found[number] for reward, found in contrasts.items()},
            judged.p_adjusted,
            judged.verdict.word,
            judged.verdict.reason,
        )
        for number, (comparison, judged) in enumerate(zip(protocol.comparisons, said, strict=True))
    )


def _contrasts(
    sides: Sequence[tuple[Array, Array]],
    family: Sequence[Array | None],
    protocol: Protocol,
    gain: int | None,
    resampled: bool,
) -> list[Contrast | None]:
    """Every comparison on one reward; None where too little is left."""
    noise = stats.seed_noise(d for d in family if d is not None)
    level = 1 - protocol.statistics.alpha
    several = [d for d in family if d is not None and complete(d, seeds=2)] if resampled else []
    drawn = iter(stats.pigeonhole_bootstraps(several, seed=BOOTSTRAP_SEED) if several else ())
    whole = None if gain is None else family[gain]
    found: list[Contrast | None] = []
    for number, ((high, low), d) in enumerate(zip(sides, family, strict=True)):
        if d is None:
            found.append(None)
            continue
        share = None
        if whole is not None and number != gain:
            share = stats.share_of_gain(d, whole, noise, level)
        dz = stats.effect_size_dz(d)
        sample = next(drawn) if resampled and complete(d, seeds=2) else None
        found.append(
            Contrast(
                interval=stats.moderated_interval(d, noise, level),
                of_gain=share,
                wins=stats.win_rate(high, low, eps=protocol.statistics.tie),
                dz=dz if np.isfinite(dz) else None,
                bootstrap=None if sample is None else (sample.low, sample.high),
                seed_effects=tuple(float(np.nanmean(r)) for r in d if not np.isnan(r).all()),
            )
        )
    return found


def missing_share(high: Array, low: Array) -> float:
    """Missing share of the planned image pairs: a cell can be there though an image is not."""
    return float(np.isnan(high - low).mean())


def _image_noise(cubes: dict[str, Array], protocol: Protocol) -> stats.ImageNoise | None:
    first, second = (cubes[arm.name] for arm in protocol.control)
    if not complete(stats.paired_differences(second, first)):
        return None
    return stats.image_noise(first, second)


def _training_noise(cube: Array) -> stats.TrainingNoise | None:
    flat = stats.paired_differences(cube, np.zeros_like(cube))
    if not complete(flat, seeds=2):
        return None
    return replace(stats.training_noise(flat), pairs=())
