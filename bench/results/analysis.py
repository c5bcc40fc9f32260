"""From per-image scores to results: what was declared, computed, and nothing else.

The input is a tidy table with one row per image and reward, and the protocol; the output is plain
data. Nothing here reads the clock, the machine or a random state of its own.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.results.protocol import Comparison, Protocol

Array = NDArray[np.float64]
BOOTSTRAP_SEED = 12345


@dataclass(frozen=True)
class Contrast:
    """One comparison on one reward. Differences are signed so that positive is better."""

    interval: stats.Interval
    wins: stats.WinRate
    dz: float | None
    bootstrap: tuple[float, float] | None
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
    against_base: dict[str, Contrast | None]
    """Every trained arm against the base model on the primary reward, outside the family."""
    missing: dict[str, int]
    """Missing or non-finite scores by reward, over all arms."""
    expected: int
    """Scores that each reward should have."""
    comparisons: tuple[Finding, ...]
    """What came of each declared one."""
    control: dict[str, stats.Interval | None]
    """A/A control by reward."""
    delta0: float | None


def analyse(scores: pd.DataFrame, protocol: Protocol) -> Results:
    """Analyse per-image scores.

    Args:
        scores: Columns arm, train_seed, prompt_id, k, reward, score, as in the
            files of :mod:`bench.results.files`.
        protocol: The declared analysis.
    """
    rewards = [reward.name for reward in protocol.rewards]
    primary = protocol.primary
    cubes = _cubes(scores, protocol)
    contrasts = [
        {name: _contrast(cubes[name], c.on, c.off, protocol, name) for name in rewards}
        for c in protocol.comparisons
    ]
    base, *trained = protocol.arms
    first, second = protocol.control
    control: dict[str, stats.Interval | None] = {}
    for name in rewards:
        d = stats.paired_differences(cubes[name][second.name], cubes[name][first.name])
        control[name] = _interval(d)
    aa, delta0 = control[primary], protocol.statistics.delta0
    if delta0 is None and aa is not None and not aa.conditional:
        delta0 = stats.noise_floor(aa)
    every = protocol.all_arms()
    missing = {
        name: int(sum(np.isnan(cubes[name][arm.name]).sum() for arm in every)) for name in rewards
    }
    cells = len(protocol.prompts.ids) * protocol.images.per_prompt
    return Results(
        protocol=protocol,
        means={a.name: {r: _mean(cubes[r][a.name]) for r in rewards} for a in protocol.arms},
        against_base={
            a.name: _contrast(cubes[primary], a.name, base.name, protocol, primary) for a in trained
        },
        missing=missing,
        expected=sum(len(a.seeds) for a in every) * cells,
        comparisons=_findings(protocol, contrasts, delta0),
        control=control,
        delta0=delta0,
    )


def _cubes(scores: pd.DataFrame, protocol: Protocol) -> dict[str, dict[str, Array]]:
    """Scores ``[S, P, K]`` by reward and arm, NaN where one is missing."""
    arms, images = protocol.all_arms(), protocol.images.per_prompt
    rows = {prompt: row for row, prompt in enumerate(protocol.prompts.ids)}
    empty = {
        reward.name: {
            arm.name: np.full((len(arm.seeds), len(rows), images), np.nan) for arm in arms
        }
        for reward in protocol.rewards
    }
    seeds = {a.name: {s: i for i, s in enumerate(a.seeds)} for a in arms}
    columns = ("reward", "arm", "train_seed", "prompt_id", "k", "score")
    for reward, arm, seed, prompt, k, score in zip(
        *(scores[c].tolist() for c in columns), strict=True
    ):
        if reward not in empty or arm not in seeds:
            continue
        index = seeds[arm][None if pd.isna(seed) else int(seed)]
        value = float(score) if score is not None else np.nan
        place = int(k) % images
        empty[reward][arm][index, rows[prompt], place] = value if np.isfinite(value) else np.nan
    return empty


def _interval(d: Array, confidence: float = 0.95) -> stats.Interval | None:
    """The crossed interval, or None if fewer than two prompts are complete."""
    kept = d[~np.isnan(d).all(axis=1)]
    if not len(kept) or (~np.isnan(kept).any(axis=0)).sum() < 2:
        return None
    return stats.crossed_interval(d, confidence)


def _mean(cube: Array) -> stats.Interval | None:
    return _interval(stats.paired_differences(cube, np.zeros_like(cube)))


def _contrast(
    cubes: dict[str, Array], on: str, off: str, protocol: Protocol, reward: str
) -> Contrast | None:
    direction = {r.name: r.direction for r in protocol.rewards}[reward]
    sign = 1.0 if direction == "higher" else -1.0
    high, low = np.broadcast_arrays(sign * cubes[on], sign * cubes[off])
    d = stats.paired_differences(high, low)
    interval = _interval(d, 1 - protocol.statistics.alpha)
    if interval is None:
        return None
    dz = stats.effect_size_dz(d)
    bootstrap = None
    if not interval.conditional and reward == protocol.primary:
        drawn = stats.pigeonhole_bootstrap(d, seed=BOOTSTRAP_SEED)
        bootstrap = (drawn.low, drawn.high)
    return Contrast(
        interval=interval,
        wins=stats.win_rate(high, low, eps=protocol.statistics.tie),
        dz=dz if np.isfinite(dz) else None,
        bootstrap=bootstrap,
        seed_effects=tuple(float(np.nanmean(row)) for row in d if not np.isnan(row).all()),
    )


def _findings(
    protocol: Protocol, contrasts: list[dict[str, Contrast | None]], delta0: float | None
) -> tuple[Finding, ...]:
    """Holm over the declared family on the primary reward, then a verdict each.

    A comparison that could not be made stays in the family, with a p-value of 1.
    """
    primary = [c[protocol.primary] for c in contrasts]
    adjusted = stats.holm([1.0 if c is None else c.interval.p_value for c in primary]).tolist()
    found: list[Finding] = []
    for comparison, by_reward, contrast, p in zip(
        protocol.comparisons, contrasts, primary, adjusted, strict=True
    ):
        if contrast is None:
            said = stats.Verdict("blocked", "too few complete pairs")
        elif delta0 is None:
            said = stats.Verdict("blocked", "the A/A control has too few complete pairs")
        else:
            missing = _missing_share(contrast, protocol)
            alpha = protocol.statistics.alpha
            said = stats.verdict(contrast.interval, p, delta0, missing, alpha)
        shown = None if contrast is None else p
        found.append(Finding(comparison, by_reward, shown, said.word, said.reason))
    return tuple(found)


def _missing_share(contrast: Contrast, protocol: Protocol) -> float:
    """Missing share of the planned image pairs: a cell can be there though an image is not."""
    i = contrast.interval
    cells = (i.n_seeds + i.dropped_seeds) * (i.n_prompts + i.dropped_prompts)
    return contrast.wins.n_missing / (cells * protocol.images.per_prompt)
