"""A leaderboard: base and arms of many result folders, in groups of what can be compared.

A group has one base model, one list of prompts, one way of making images and the same rewards by
signature, primary reward, level and tie band. A row's own figures follow from its own folder
alone; its ranks and its strength depend on who else is in the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench import stats
from bench.results.analysis import BOOTSTRAP_SEED, Array
from bench.results.files import PROTOCOL
from bench.results.gains import Entry, Part, Row, read_part
from bench.results.protocol import Images, Reward
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text
from trainers.input.paths import is_regular

MOST = 32
"""Rows of a group that strengths are fitted to at most: every pair of them is looked at."""


@dataclass(frozen=True)
class Source:
    """A result folder of a group."""

    name: str
    title: str
    label: str
    """What its results are to be taken for."""
    pairs: str
    """What was trained on."""
    twins: dict[str, str]
    """Arms that are no runs of their own, and whose they are: they have no row."""
    prefixes: dict[str, str]
    """What stands before the prompts of arms that were trained for it."""


@dataclass(frozen=True)
class Group:
    """Rows that can be compared."""

    base: str
    """Name of the base model, by a manifest; else the start of its sha256."""
    base_sha256: str
    prompts: str
    split: str
    prompts_sha256: str
    n_prompts: int
    images: Images
    rewards: tuple[Reward, ...]
    """Those of the first folder, marks included."""
    primary: str
    alpha: float
    tie: float
    sources: tuple[Source, ...]
    base_spread: dict[str, float]
    """By reward, how far means of the base model differ between folders: rounding, if at all."""
    rows: tuple[Row, ...]
    """The largest gain on the primary reward first; the base model stands at 0."""


def find_results(places: Sequence[Path]) -> dict[str, Path]:
    """Result folders by name: those given, and those that lie in one that is given.

    Raises:
        UserError: If one is none and holds none.
    """
    found: dict[Path, Path] = {}
    for place in places:
        inside = sorted(path.parent for path in place.glob(f"*/{PROTOCOL}"))
        here = [place] if is_regular(place / PROTOCOL) else inside
        if not here:
            raise UserError(
                f"{place} is no result folder and holds none: give folders that 'bench ablate' has "
                "written, or one that they lie in"
            )
        found |= {path.resolve(): path for path in here}
    names = [full.name for full in found]
    return {
        full.name if names.count(full.name) == 1 else str(path): path
        for full, path in found.items()
    }


def leaderboard(folders: dict[str, Path]) -> tuple[Group, ...]:
    """The groups of some result folders.

    Raises:
        UserError: As :func:`bench.results.gains.read_part`.
    """
    groups: dict[str, list[Part]] = {}
    for name, folder in sorted(folders.items()):
        part = read_part(name, folder)
        groups.setdefault(_key(part), []).append(part)
    order = sorted(groups, key=lambda key: (groups[key][0].base, key))
    return tuple(_group(groups[key]) for key in order)


def _key(part: Part) -> str:
    """All that rows must share to be compared."""
    protocol, judged = part.protocol, part.protocol.statistics
    ids = sha256_text(canonical_json(protocol.prompts.ids))
    rewards = sorted((r.name, r.direction, r.signature) for r in protocol.rewards)
    return canonical_json(
        [part.base_sha256, protocol.prompts.sha256, ids, protocol.images.model_dump(mode="json"),
         rewards, protocol.primary, judged.alpha, judged.tie]
    )  # fmt: skip


def _group(parts: list[Part]) -> Group:
    protocol = parts[0].protocol
    prompts, primary, alpha = protocol.prompts, protocol.primary, protocol.statistics.alpha
    entries = [parts[0].entries[0], *(entry for part in parts for entry in part.entries[1:])]
    ranks = {r.name: _ranks(entries, r.name, alpha) for r in protocol.rewards}
    strengths = _strengths(entries, protocol.statistics.tie, alpha)
    rows = [
        replace(
            entry.row,
            standings={
                reward: replace(standing, rank=ranks[reward][n])
                for reward, standing in entry.row.standings.items()
            },
            strength=strengths[n],
        )
        for n, entry in enumerate(entries)
    ]
    return Group(
        base=parts[0].base,
        base_sha256=parts[0].base_sha256,
        prompts=prompts.name,
        split=prompts.split,
        prompts_sha256=prompts.sha256,
        n_prompts=len(prompts.ids),
        images=protocol.images,
        rewards=protocol.rewards,
        primary=primary,
        alpha=alpha,
        tie=protocol.statistics.tie,
        sources=tuple(map(_source, parts)),
        base_spread={r.name: _spread(parts, r.name) for r in protocol.rewards},
        rows=tuple(sorted(rows, key=lambda row: (-_place(row, primary), row.result, row.arm))),
    )


def _place(row: Row, primary: str) -> float:
    """What rows are sorted by; a row without a gain comes last."""
    gain = row.standings[primary].gain
    return gain.mean if gain else 0.0 if row.seeds == 0 else -np.inf


def _widened(entries: list[Entry], arrays: list[Array]) -> list[Array]:
    """The base model stands beside every training seed."""
    most = max(len(array) for array in arrays)
    return [
        array if entry.row.seeds else np.repeat(array, most, axis=0)
        for entry, array in zip(entries, arrays, strict=True)
    ]


def _ranks(entries: list[Entry], reward: str, alpha: float) -> list[stats.Range | None]:
    gains = [entry.gains[reward] for entry in entries]
    ranked = [n for n, gain in enumerate(gains) if gain is not None]
    found: list[stats.Range | None] = [None] * len(entries)
    if ranked:
        kept = [gain for gain in gains if gain is not None]
        ranges = stats.rank_ranges(_widened([entries[n] for n in ranked], kept), alpha)
        for n, places in zip(ranked, ranges, strict=True):
            found[n] = places
    return found


def _strengths(entries: list[Entry], tie: float, alpha: float) -> Sequence[stats.Strength | None]:
    if not 2 <= len(entries) <= MOST:
        return [None] * len(entries)
    rows = _widened(entries, [entry.scores for entry in entries])
    return stats.strengths(rows, eps=tie, seed=BOOTSTRAP_SEED, confidence=1 - alpha)


def _spread(parts: list[Part], reward: str) -> float:
    means = [part.entries[0].row.standings[reward].mean for part in parts]
    known = [mean for mean in means if mean is not None]
    return max(known, default=0.0) - min(known, default=0.0)


def _source(part: Part) -> Source:
    protocol, pairs = part.protocol, part.protocol.pairs
    called = pairs.data if isinstance(pairs.data, str) else canonical_json(pairs.data)
    return Source(
        part.name,
        protocol.title,
        protocol.label,
        f"{pairs.kept} pairs of {called}",
        {arm.name: arm.same_as for arm in protocol.arms if arm.same_as},
        {arm.name: arm.prompt_prefix for arm in protocol.arms if arm.prompt_prefix},
    )
