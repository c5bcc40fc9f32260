"""Two results, or two arms: what they differ in, and whether their scores do beyond noise.

Scores are compared as closely as they allow. Images of the same prompts, made in the same way from
the same noise, are paired; images of the same prompts that were made otherwise are paired by prompt
alone; those of other prompts are not paired. Scores of different signatures are not compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench import stats
from bench.results.analysis import Array, complete, score_cubes
from bench.results.files import (
    INTEGERS,
    MANIFEST,
    SCORES,
    read_columns,
    read_manifest,
    read_scores,
)
from bench.results.manifest import Manifest
from bench.results.protocol import Arm, Protocol
from trainers import differences
from trainers.errors import UserError
from trainers.files import sha256_file

How = Literal["paired", "by prompt", "unpaired", "not compared"]
Word = Literal["better", "worse", "identical", "no difference shown", "conditional", "-"]
ALPHA = 0.05
IMAGE = ["arm", "train_seed", "prompt_id", "k", "image_sha256"]


@dataclass(frozen=True)
class Side:
    """A result folder, or an arm of it."""

    folder: Path
    arm: str | None
    protocol: Protocol
    manifest: Manifest | None
    cubes: dict[str, dict[str, Array]]


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on both sides, as text."""

    what: Literal["settings", "versions", "files"]
    key: str
    first: str
    second: str


@dataclass(frozen=True)
class Compared:
    """The second side's scores less the first's, of one arm and reward; positive is better."""

    arm: str
    reward: str
    how: How
    why: str
    """Of what is not paired."""
    difference: stats.Interval | stats.Unpaired | None
    wins: stats.WinRate | None
    """Image by image; None where images are not paired."""
    like: float
    """A typical score, which decides the decimals that are shown."""
    seeds: int
    """Training seeds of the side that has fewer; 0 for the base model."""
    p_adjusted: float | None = None
    """By Holm over all that is compared."""
    word: Word = "-"
    """Of the second side; beyond noise is an adjusted p below 5 %, of three seeds or more."""


@dataclass(frozen=True)
class Comparison:
    """All that two results, or two arms, differ in."""

    first: str
    second: str
    differences: tuple[Difference, ...]
    same_images: int
    """Images that are the same bytes on both sides."""
    images: int
    """Images of the same arm, seed, prompt and number on both sides."""
    scores: tuple[Compared, ...]
    alone: tuple[str, ...]
    """Arms and rewards that only one side has."""


def open_side(text: str) -> Side:
    """A result folder, ``FOLDER``, or one of its arms, ``FOLDER:ARM``.

    Raises:
        UserError: If it is neither, or as :func:`bench.results.files.read_scores`.
    """
    folder, arm = Path(text), None
    for place in [n for n, char in enumerate(text) if char == ":"]:
        if not folder.is_dir() and Path(text[:place]).is_dir():
            folder, arm = Path(text[:place]), text[place + 1 :]
    scores, protocol = read_scores(folder)
    names = [each.name for each in protocol.arms]
    if arm is not None and arm not in names:
        raise UserError(f"{folder} has no arm {arm!r}: give one of {', '.join(map(repr, names))}")
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    return Side(folder, arm, protocol, manifest, score_cubes(scores, protocol))


def compare(first: Side, second: Side) -> Comparison:
    """Compare two results, arm by arm, or two arms.

    Raises:
        UserError: If one is a whole result and the other an arm.
    """
    if (first.arm is None) != (second.arm is None):
        raise UserError(
            f"expected two results or two arms, got {_called(first)} and {_called(second)}: give "
            "both as FOLDER, or both as FOLDER:ARM"
        )
    arms, alone = _arms(first, second)
    found = [
        _compared(first, second, one, other, reward)
        for one, other in arms
        for reward in [r.name for r in first.protocol.rewards]
        if reward in second.cubes
    ]
    rewards = ({r.name for r in side.protocol.rewards} for side in (first, second))
    same, images = _images(first, second, arms)
    return Comparison(
        _called(first),
        _called(second),
        tuple(_differences(first, second)),
        same,
        images,
        tuple(_judged(found)),
        (*alone, *sorted(set.symmetric_difference(*rewards))),
    )


def _called(side: Side) -> str:
    return str(side.folder) if side.arm is None else f"{side.folder}:{side.arm}"


def _arms(first: Side, second: Side) -> tuple[list[tuple[Arm, Arm]], list[str]]:
    """Arms that are compared, and those that only one side has."""
    one, other = ({arm.name: arm for arm in side.protocol.arms} for side in (first, second))
    if first.arm is not None and second.arm is not None:
        return [(one[first.arm], other[second.arm])], []
    both = [(one[name], other[name]) for name in one if name in other]
    return both, sorted({*one} ^ {*other})


def _differences(first: Side, second: Side) -> Iterator[Difference]:
    kinds: dict[Literal["settings", "versions", "files"], Any] = {
        "settings": _settings, "versions": _versions, "files": _files,
    }  # fmt: skip
    for kind, read in kinds.items():
        for key, one, other in differences.differing(read(first), read(second)):
            yield Difference(kind, key, differences.text(one), differences.text(other))


def _settings(side: Side) -> Mapping[str, Any]:
    """Of an arm, what its runs have in common and how its images were made; else the spec."""
    protocol, manifest = side.protocol, side.manifest
    declared = {
        "prompts": protocol.prompts.name,
        "n_prompts": len(protocol.prompts.ids),
        "generate": protocol.images.model_dump(mode="json"),
    }
    if side.arm is None:
        told = manifest.spec if manifest else {"generate": declared["generate"]}
        return {**declared, **told, "statistics": protocol.statistics.model_dump(mode="json")}
    (arm,) = (each for each in protocol.arms if each.name == side.arm)
    runs = [run.config for run in manifest.runs if run.arm == side.arm] if manifest else []
    config = {key: value for run in runs[:1] for key, value in run.items() if key != "seed"}
    hashes = {"base_sha256", "data_sha256"}
    train = {key: value for key, value in config.items() if key not in hashes}
    return {**declared, "seeds": [*arm.seeds], "train": train}


def _versions(side: Side) -> Mapping[str, Any]:
    found: dict[str, Any] = {"dpo-bench": side.protocol.bench}
    if side.manifest is not None:
        git = side.manifest.git
        found |= {
            "commit": git.commit if git else None,
            "uncommitted changes": git.patch_sha256 if git else None,
            "packages": side.manifest.packages,
            "machine": side.manifest.machine.model_dump(mode="json"),
        }
    return found


def _files(side: Side) -> Mapping[str, Any]:
    """sha256 of what was read and written, and signatures of rewards."""
    found: dict[str, Any] = {
        "prompts": side.protocol.prompts.sha256,
        "rewards": {reward.name: reward.signature for reward in side.protocol.rewards},
        SCORES: sha256_file(side.folder / SCORES),
    }
    if side.manifest is not None:
        runs = [run for run in side.manifest.runs if side.arm in (None, run.arm)]
        data = sorted({str(run.config.get("data_sha256")) for run in runs})
        found |= {"base": side.manifest.inputs.base.sha256, "data": data}
    return found


def _images(first: Side, second: Side, arms: list[tuple[Arm, Arm]]) -> tuple[int, int]:
    """How many images are the same bytes, of how many that have the same name."""
    tables = []
    for side, place in ((first, 0), (second, 1)):
        numbers = {pair[place].name: n for n, pair in enumerate(arms)}
        _, table = read_columns(side.folder, IMAGE)
        rows = table.to_pandas(types_mapper=INTEGERS.get).drop_duplicates(IMAGE[:-1])
        rows = rows[rows["arm"].isin([*numbers])]
        tables.append(rows.assign(arm=rows["arm"].map(numbers).astype(int)))
    both = tables[0].merge(tables[1], on=IMAGE[:-1])
    return int((both["image_sha256_x"] == both["image_sha256_y"]).sum()), len(both)


def _compared(first: Side, second: Side, one: Arm, other: Arm, reward: str) -> Compared:
    arm = one.name if one.name == other.name else f"{other.name} - {one.name}"
    declared = [{r.name: r for r in side.protocol.rewards}[reward] for side in (first, second)]
    seeds = [n for n in (_seeds(one), _seeds(other)) if n]
    cubes = [side.cubes[reward][a.name] for side, a in ((first, one), (second, other))]
    seen = np.concatenate([cube[np.isfinite(cube)] for cube in cubes])
    like = float(np.abs(seen).mean()) if len(seen) else 0.0
    said = Compared(arm, reward, "not compared", "", None, None, like, min(seeds, default=0))
    if declared[0].signature != declared[1].signature:
        return replace(said, why=f"{declared[0].signature} and {declared[1].signature}")
    sign = 1.0 if declared[0].direction == "higher" else -1.0
    how, why, low, high = _aligned(first.protocol, second.protocol, *(sign * c for c in cubes))
    if how != "unpaired":
        low, high, unmatched = _by_seed(one, other, low, high)
        why = "; ".join(filter(None, (why, unmatched)))
    return _difference(replace(said, how=how, why=why), low, high)


def _seeds(arm: Arm) -> int:
    return sum(seed is not None for seed in arm.seeds)


def _aligned(
    first: Protocol, second: Protocol, low: Array, high: Array
) -> tuple[How, str, Array, Array]:
    """Both sides on the prompts that both have, averaged over images that are not the same ones."""
    places = {prompt: n for n, prompt in enumerate(second.prompts.ids)}
    common = [(n, places[p]) for n, p in enumerate(first.prompts.ids) if p in places]
    if first.prompts.sha256 != second.prompts.sha256 or len(common) < 2:
        return "unpaired", "the prompts are others", low, high
    here, there = (list(each) for each in zip(*common, strict=True))
    low, high = low[:, here], high[:, there]
    if first.images == second.images:
        return "paired", "", low, high
    low, high = (stats.paired_differences(x, np.zeros_like(x))[..., None] for x in (low, high))
    return "by prompt", "images were made otherwise", low, high


def _by_seed(one: Arm, other: Arm, low: Array, high: Array) -> tuple[Array, Array, str]:
    """Runs of equal training seeds side by side; those of none, in order."""
    if not _seeds(one) or not _seeds(other):
        return low, high, ""
    common = [seed for seed in one.seeds if seed in other.seeds]
    if not common:
        n = min(len(low), len(high))
        return low[:n], high[:n], "training seeds are others"
    rows = ([arm.seeds.index(seed) for seed in common] for arm in (one, other))
    left = "" if len(common) == len(one.seeds) == len(other.seeds) else "seeds of both sides only"
    return low[next(rows)], high[next(rows)], left


def _difference(said: Compared, low: Array, high: Array) -> Compared:
    if said.how == "unpaired":
        means = [stats.paired_differences(x, np.zeros_like(x)) for x in (low, high)]
        if not all(map(complete, means)):
            return replace(said, how="not compared", why="too few scores")
        return replace(said, difference=stats.unpaired(*map(stats.crossed_interval, means)))
    low, high = np.broadcast_arrays(low, high)
    d = stats.paired_differences(high, low)
    if not complete(d):
        return replace(said, how="not compared", why="too few scores")
    interval = stats.moderated_interval(d, stats.seed_noise([d]))
    wins = stats.win_rate(high, low) if said.how == "paired" else None
    seeds = min(said.seeds, interval.n_seeds)
    return replace(said, difference=interval, wins=wins, seeds=seeds)


def _judged(found: list[Compared]) -> Iterator[Compared]:
    """The word of each, by Holm over all of them."""
    p_values = [each.difference.p_value for each in found if each.difference is not None]
    adjusted = iter(stats.holm(p_values).tolist())
    for each in found:
        if each.difference is None:
            yield each
        else:
            p = next(adjusted)
            yield replace(each, p_adjusted=p, word=_word(each.difference, each.seeds, p))


def _word(found: stats.Interval | stats.Unpaired, seeds: int, p: float) -> Word:
    if found.mean == found.low == found.high == 0:
        return "identical"
    if 0 < seeds < stats.MIN_SEEDS:
        return "conditional"
    if p >= ALPHA:
        return "no difference shown"
    return "better" if found.mean > 0 else "worse"
