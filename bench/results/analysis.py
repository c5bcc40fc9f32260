"""From per-image scores to results: what was declared, computed, and nothing else.

The input is a tidy table with one row per image and reward, and the plan of the analysis; the
output is plain data. Nothing here reads the clock, the machine or a random state of its own.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bench import stats

Array = NDArray[np.float64]
BOOTSTRAP_SEED = 12345


class ArmPlan(BaseModel):
    """An arm as the analysis sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    seeds: tuple[int | None, ...]


class Plan(BaseModel):
    """The analysis that was declared before the scores were seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    label: str
    arms: tuple[ArmPlan, ...]
    """The base model first, with the one seed None."""
    control: tuple[ArmPlan, ArmPlan]
    """The two sides of the A/A control; their seeds number the pairs."""
    comparisons: tuple[tuple[str, str, str], ...]
    """(on, off, question)."""
    prompts: tuple[str, ...]
    images_per_prompt: int
    rewards: dict[str, str]
    """Direction by reward, ``higher`` or ``lower``."""
    marks: dict[str, str] = {}
    """Why a reward is no independent judge here, by its name."""
    primary: str
    alpha: float
    delta0: float | None
    tie: float
    footer: tuple[str, ...]
    """Lines that say what the numbers are: signatures, prompts, generation, version."""


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
class Comparison:
    """A declared comparison with its verdict on the primary reward."""

    on: str
    off: str
    question: str
    contrasts: dict[str, Contrast | None]
    """By reward; None where too little is left to compare."""
    p_adjusted: float | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Results:
    """Everything a table shows."""

    plan: Plan
    means: dict[str, dict[str, stats.Interval | float | None]]
    """Mean score by arm and reward, as it was scored: an interval where seeds allow one."""
    against_base: dict[str, Contrast | None]
    """Every trained arm against the base model on the primary reward, outside the family."""
    missing: dict[str, int]
    """Missing or non-finite scores by reward, over all arms."""
    expected: int
    """Scores that each reward should have."""
    comparisons: tuple[Comparison, ...]
    control: dict[str, stats.Interval | None]
    """A/A control by reward."""
    delta0: float | None


def analyse(scores: pd.DataFrame, plan: Plan) -> Results:
    """Analyse per-image scores.

    Args:
        scores: Columns arm, train_seed, prompt_id, k, reward, score; see :mod:`bench.results`.
        plan: The declared analysis.
    """
    cubes = _cubes(scores, plan)
    contrasts = [
        {name: _contrast(cubes[name], on, off, plan, name) for name in plan.rewards}
        for on, off, _ in plan.comparisons
    ]
    base, *trained = plan.arms
    first, second = plan.control
    control: dict[str, stats.Interval | None] = {}
    for name in plan.rewards:
        d = stats.paired_differences(cubes[name][second.name], cubes[name][first.name])
        control[name] = _interval(d)
    aa = control[plan.primary]
    delta0 = plan.delta0
    if delta0 is None and aa is not None and not aa.conditional:
        delta0 = stats.noise_floor(aa)
    every = [*plan.arms, *plan.control]
    missing = {
        name: int(sum(np.isnan(cubes[name][arm.name]).sum() for arm in every))
        for name in plan.rewards
    }
    return Results(
        plan=plan,
        means={a.name: {r: _mean(cubes[r][a.name]) for r in plan.rewards} for a in plan.arms},
        against_base={
            a.name: _contrast(cubes[plan.primary], a.name, base.name, plan, plan.primary)
            for a in trained
        },
        missing=missing,
        expected=sum(len(a.seeds) for a in every) * len(plan.prompts) * plan.images_per_prompt,
        comparisons=_verdicts(plan, contrasts, delta0),
        control=control,
        delta0=delta0,
    )


def _cubes(scores: pd.DataFrame, plan: Plan) -> dict[str, dict[str, Array]]:
    """Scores ``[S, P, K]`` by reward and arm, NaN where one is missing."""
    rows = {prompt: row for row, prompt in enumerate(plan.prompts)}
    empty = {
        reward: {
            arm.name: np.full((len(arm.seeds), len(plan.prompts), plan.images_per_prompt), np.nan)
            for arm in (*plan.arms, *plan.control)
        }
        for reward in plan.rewards
    }
    seeds = {a.name: {s: i for i, s in enumerate(a.seeds)} for a in (*plan.arms, *plan.control)}
    columns = ("reward", "arm", "train_seed", "prompt_id", "k", "score")
    for reward, arm, seed, prompt, k, score in zip(
        *(scores[c].tolist() for c in columns), strict=True
    ):
        if reward not in empty or arm not in seeds:
            continue
        index = seeds[arm][None if pd.isna(seed) else int(seed)]
        value = float(score) if score is not None else np.nan
        place = int(k) % plan.images_per_prompt
        empty[reward][arm][index, rows[prompt], place] = value if np.isfinite(value) else np.nan
    return empty


def _interval(d: Array, confidence: float = 0.95) -> stats.Interval | None:
    """The crossed interval, or None if fewer than two prompts are complete."""
    kept = d[~np.isnan(d).all(axis=1)]
    if not len(kept) or (~np.isnan(kept).any(axis=0)).sum() < 2:
        return None
    return stats.crossed_interval(d, confidence)


def _mean(cube: Array) -> stats.Interval | float | None:
    flat = stats.paired_differences(cube, np.zeros_like(cube))
    return _interval(flat)


def _contrast(
    cubes: dict[str, Array], on: str, off: str, plan: Plan, reward: str
) -> Contrast | None:
    sign = 1.0 if plan.rewards[reward] == "higher" else -1.0
    high, low = np.broadcast_arrays(sign * cubes[on], sign * cubes[off])
    d = stats.paired_differences(high, low)
    interval = _interval(d, 1 - plan.alpha)
    if interval is None:
        return None
    dz = stats.effect_size_dz(d)
    bootstrap = None
    if not interval.conditional and reward == plan.primary:
        drawn = stats.pigeonhole_bootstrap(d, seed=BOOTSTRAP_SEED)
        bootstrap = (drawn.low, drawn.high)
    return Contrast(
        interval=interval,
        wins=stats.win_rate(high, low, eps=plan.tie),
        dz=dz if np.isfinite(dz) else None,
        bootstrap=bootstrap,
        seed_effects=tuple(float(np.nanmean(row)) for row in d if not np.isnan(row).all()),
    )


def _verdicts(
    plan: Plan, contrasts: list[dict[str, Contrast | None]], delta0: float | None
) -> tuple[Comparison, ...]:
    """Holm over the declared family on the primary reward, then a verdict each.

    A comparison that could not be made stays in the family, with a p-value of 1.
    """
    primary = [c[plan.primary] for c in contrasts]
    adjusted = stats.holm([1.0 if c is None else c.interval.p_value for c in primary]).tolist()
    found: list[Comparison] = []
    for (on, off, question), by_reward, contrast, p in zip(
        plan.comparisons, contrasts, primary, adjusted, strict=True
    ):
        if contrast is None:
            word, reason = "blocked", "too few complete pairs"
        elif delta0 is None:
            word, reason = "blocked", "the A/A control has too few complete pairs"
        else:
            missing = _missing_share(contrast, plan)
            said = stats.verdict(contrast.interval, p, delta0, missing, plan.alpha)
            word, reason = said.word, said.reason
        shown = None if contrast is None else p
        found.append(Comparison(on, off, question, by_reward, shown, word, reason))
    return tuple(found)


def _missing_share(contrast: Contrast, plan: Plan) -> float:
    """Missing share of the planned image pairs: a cell can be there though an image is not."""
    i = contrast.interval
    cells = (i.n_seeds + i.dropped_seeds) * (i.n_prompts + i.dropped_prompts)
    return contrast.wins.n_missing / (cells * plan.images_per_prompt)


def as_data(results: Results) -> dict[str, Any]:
    """Results as JSON-able data, floats rounded to 9 significant digits."""
    data = asdict(results)
    data["plan"] = results.plan.model_dump(mode="json")
    rounded = _rounded(data)
    assert isinstance(rounded, dict)
    return rounded


def _rounded(value: Any) -> Any:
    match value:
        case dict():
            return {k: _rounded(v) for k, v in value.items()}
        case list() | tuple():
            return [_rounded(v) for v in value]
        case float():
            return float(f"{value:.9g}") if np.isfinite(value) else None
        case _:
            return value
