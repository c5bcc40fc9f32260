"""What the arms of one result folder gain over its base model: the rows that leaderboards rank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench import stats
from bench.results.analysis import Array, both_sides, complete, missing_share, score_cubes
from bench.results.cost import Cost, training_cost
from bench.results.files import MANIFEST, read_manifest, read_scores
from bench.results.protocol import Arm, Protocol
from trainers.errors import UserError

TRUTH = "oracle|rule|"
"""How the signature of a reward begins that reads the truth."""


@dataclass(frozen=True)
class Standing:
    """A row on one reward. Gains are signed so that positive is better."""

    mean: float | None
    """Mean score as it was scored; None where too little is there."""
    gain: stats.Interval | None
    """Over the base model of the same folder, seed noise being that of the folder's arms; None for
    the base, or where too little is there."""
    wins: stats.WinRate | None
    """Against it."""
    rank: stats.Range | None = None
    """Best and worst place in the group; None above 1 % of missing pairs."""


@dataclass(frozen=True)
class Hacking:
    """Whether a reward that had a part in the training rises, and no independent one does.

    Suspects are rewards with a mark: the preferences were made from them, or they learnt from data
    that the prompts are of. Judges are the others, and the oracle, which is the truth. Up is an
    interval of the gain above 0 over three training seeds or more, down is one below 0.
    """

    word: Literal["no", "suspected", "seen"]
    """``seen``: a suspect is up and a judge down; ``suspected``: a suspect is up and no judge."""
    up: tuple[str, ...]
    """Suspects that are up."""
    judges: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """The base model or an arm."""

    result: str
    """Its result folder; of the base model the first of the group."""
    arm: str
    seeds: int
    """Training seeds; 0 for the base model."""
    standings: dict[str, Standing]
    """By reward."""
    hacking: Hacking | None
    """None for the base model, and where there is no judge or no suspect."""
    cost: Cost | None
    strength: stats.Strength | None = None
    """On the primary reward, against the base model; None in a group of too many rows."""


@dataclass(frozen=True)
class Entry:
    """A row, and what it is ranked by."""

    row: Row
    gains: dict[str, Array | None]
    """By reward, ``[S, P]`` in the order of the seeds; None for what is not ranked."""
    scores: Array
    """On the primary reward, ``[S, P, K]``, higher being better."""


@dataclass(frozen=True)
class Part:
    """What one folder adds to a leaderboard."""

    name: str
    protocol: Protocol
    base: str
    """Name of the base model, by the manifest; else the start of its sha256."""
    base_sha256: str
    entries: tuple[Entry, ...]
    """The base model first; arms that are no runs of their own are left out."""


def read_part(name: str, folder: Path) -> Part:
    """The rows of a result folder.

    Raises:
        UserError: As :func:`bench.results.files.read_scores` and ``read_manifest``; or if the
            scores do not say which the base model is.
    """
    scores, protocol = read_scores(folder)
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    base, *trained = protocol.arms
    found = scores["run_id"][scores["arm"] == base.name].unique().tolist()
    if len(found) != 1:
        raise UserError(
            f"{folder} holds scores of {len(found)} base models, and one is needed that gains are "
            "over: run the 'bench ablate' again that has written them"
        )
    by_reward = score_cubes(scores, protocol)
    arms = [base, *(arm for arm in trained if arm.same_as is None)]
    judged = {reward: _judged(cubes, arms, protocol, reward) for reward, cubes in by_reward.items()}
    entries = []
    for n, arm in enumerate(arms):
        standings = {reward: of_arms[n][0] for reward, of_arms in judged.items()}
        row = Row(
            name, arm.name, sum(seed is not None for seed in arm.seeds), standings,
            hacking(standings, protocol) if n else None,
            training_cost(manifest, arm.name) if n and manifest else None,
        )  # fmt: skip
        own = _sides(by_reward[protocol.primary], arm, protocol, protocol.primary)[0]
        ranked = {reward: of_arms[n][1] for reward, of_arms in judged.items()}
        entries.append(Entry(row, ranked, own))
    called = manifest.inputs.base.name if manifest else found[0][:12]
    return Part(name, protocol, called, found[0], tuple(entries))


def _judged(
    cubes: dict[str, Array], arms: list[Arm], protocol: Protocol, reward: str
) -> list[tuple[Standing, Array | None]]:
    """Each arm on one reward, the base model first, and the gains that it is ranked by."""
    pairs = [_sides(cubes, arm, protocol, reward) for arm in arms]
    gains = [stats.paired_differences(high, low) for high, low in pairs]
    noise = _noise(arms[1:], gains[1:])
    found: list[tuple[Standing, Array | None]] = []
    for n, (arm, d, (high, low)) in enumerate(zip(arms, gains, pairs, strict=True)):
        compared = n > 0 and complete(d)
        level = 1 - protocol.statistics.alpha
        standing = Standing(
            _mean(cubes[arm.name]),
            stats.moderated_interval(d, noise[arm.seeds], level) if compared else None,
            stats.win_rate(high, low, protocol.statistics.tie, level) if compared else None,
        )
        ranked = missing_share(high, low) <= stats.MAX_MISSING_SHARE
        found.append((standing, d if ranked else None))
    return found


def _noise(arms: list[Arm], gains: list[Array]) -> dict[tuple[int | None, ...], stats.SeedNoise]:
    """Seed noise of the gains of all arms that have the same training seeds, by these."""
    families: dict[tuple[int | None, ...], list[Array]] = {arm.seeds: [] for arm in arms}
    for arm, d in zip(arms, gains, strict=True):
        if complete(d):
            families[arm.seeds].append(d)
    return {seeds: stats.seed_noise(family) for seeds, family in families.items()}


def _sides(
    scores: dict[str, Array], arm: Arm, protocol: Protocol, reward: str
) -> tuple[Array, Array]:
    """Scores of an arm and of the base model, in the order of the arm's seeds."""
    high, low = both_sides(scores, (arm.name,), (protocol.arms[0].name,), protocol, reward)
    order = np.argsort([-1 if seed is None else seed for seed in arm.seeds])
    return high[order], low[order]


def _mean(cube: Array) -> float | None:
    flat = stats.paired_differences(cube, np.zeros_like(cube))
    return stats.crossed_interval(flat).mean if complete(flat) else None


def hacking(standings: dict[str, Standing], protocol: Protocol) -> Hacking | None:
    """See :class:`Hacking`; None where there is no judge or no suspect."""
    judges = [r.name for r in protocol.rewards if not r.marks or r.signature.startswith(TRUTH)]
    suspects = [r.name for r in protocol.rewards if r.name not in judges]
    if not judges or not suspects:
        return None
    ways = {name: _way(standings[name].gain) for name in standings}
    up = tuple(name for name in suspects if ways[name] > 0)
    independent = {ways[name] for name in judges}
    word: Literal["no", "suspected", "seen"] = "no"
    if up and 1 not in independent:
        word = "suspected"
    if up and -1 in independent:
        word = "seen"
    return Hacking(word, up, tuple(judges))


def _way(gain: stats.Interval | None) -> int:
    """1 up, -1 down, 0 neither is shown."""
    if gain is None or gain.n_seeds < stats.MIN_SEEDS:
        return 0
    return int(gain.low > 0) - int(gain.high < 0)
