"""How often a reward prefers the picture of a pair that the oracle prefers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.images.read import Item, read_items
from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.stats import wilson
from bench.terminal import Column, print_json, print_table
from bench.world.oracle import judge
from bench.world.scenes import parse
from trainers.errors import UserError
from trainers.input.image import to_rgb
from trainers.seeds import numpy_generator

DRAWN = {"faults": 0.0, "attributes": 0.5}
"""Kinds of pairs drawn for held-out captions, and the share of their pictures that show a wrong
word. Without one both pictures show the caption, and differ in how well they are made."""
SAMPLED = "model images"
TRUTHS = ("score", "fit", "craft")
"""What of the oracle's judgement rewards are compared with."""


@dataclass(frozen=True)
class Pairs:
    """Pictures two by two, ``2 i`` and ``2 i + 1`` under one caption, and the oracle's opinion."""

    kind: str
    images: list[Image.Image]
    captions: list[str]
    truth: dict[str, NDArray[np.float64]]
    """The oracle's ``score``, ``fit`` and ``craft`` of each picture, in [0, 1]."""


@dataclass(frozen=True)
class Agreement:
    """In how many pairs a reward prefers what the oracle prefers.

    Pairs that the oracle finds equal are left out; one that the reward does counts as a half.
    """

    reward: str
    kind: str
    truth: str
    pairs: int
    share: float
    low: float
    high: float
    """Bounds of the 95 % Wilson interval."""


def drawn_pairs(kind: str, count: int, seed: int) -> Pairs:
    """Draw worn pictures for captions of the test split, which no training picture had."""
    from bench.mini.build.rewards.data import SCENES, draw_groups

    rng = numpy_generator(seed, "agreement", kind)
    groups = draw_groups("test", count, 2, DRAWN[kind], rng)
    views = groups["pictures"].flatten(0, 1).movedim(1, -1).numpy()
    captions = [SCENES[i].caption for i in groups["told"].repeat_interleave(2).tolist()]
    return _judged(kind, [Image.fromarray(view) for view in views], captions)


def sampled_pairs(source: Path) -> Pairs:
    """Pair the images of a folder that ``bench generate`` wrote, for each prompt in their order.

    Raises:
        UserError: If the images cannot be read, no two have one prompt, or they are none of the
            miniature world.
    """
    by_prompt: dict[str, list[Item]] = {}
    for item in sorted(read_items(source), key=lambda item: (item.prompt, item.k)):
        by_prompt.setdefault(item.prompt, []).append(item)
    paired = [item for items in by_prompt.values() for item in items[: len(items) // 2 * 2]]
    if not paired:
        raise UserError(
            f"expected two images or more of a prompt in {source}, got one of each: "
            "use 'bench generate --images-per-prompt 2'"
        )
    images = [to_rgb(item.open()) for item in paired]
    try:
        return _judged(SAMPLED, images, [item.prompt for item in paired])
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def _judged(kind: str, images: list[Image.Image], captions: list[str]) -> Pairs:
    judged = [judge(np.asarray(i), parse(c)) for i, c in zip(images, captions, strict=True)]
    truth = {name: np.array([getattr(j, name) for j in judged]) for name in TRUTHS}
    return Pairs(kind, images, captions, truth)


def agree(reward: Reward, pairs: Pairs) -> list[Agreement]:
    """Compare a reward with each part of the oracle's opinion."""
    margin = _margins(reward.score(pairs.images, pairs.captions))
    found = []
    for name, values in pairs.truth.items():
        true = _margins(values)
        kept = true != 0
        if not kept.any():
            raise UserError(f"{pairs.kind}: the oracle prefers nothing: take other pictures")
        right = (1 + np.sign(margin[kept]) * np.sign(true[kept])) / 2
        share, count = float(right.mean()), int(kept.sum())
        low, high = wilson(share, count)
        found.append(Agreement(reward.card.name, pairs.kind, name, count, share, low, high))
    return found


def _margins(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far the first picture of each pair is above the second."""
    first, second = values.astype(np.float64).reshape(-1, 2).T
    return np.asarray(first - second)


def agreements(
    names: Sequence[str], count: int, seed: int, folder: Path | None
) -> Iterator[Agreement]:
    """Compare rewards with the oracle on ``count`` drawn pairs of each kind, and on a folder's.

    Raises:
        UserError: If a reward or the folder is not as expected; see :func:`sampled_pairs`.
    """
    rewards = [REWARDS.get(name)() for name in names]
    makers = [partial(drawn_pairs, kind, count, seed) for kind in DRAWN]
    if folder is not None:
        makers.append(partial(sampled_pairs, folder))
    for make in makers:
        pairs = make()
        for reward in rewards:
            yield from agree(reward, pairs)


def miniatures() -> list[str]:
    """The names of the rewards with miniature weights."""
    return [name for name, kind in REWARDS.usable() if kind.card.origin == "miniature"]


def print_agreements(found: Sequence[Agreement], as_json: bool) -> None:
    """Print a table with intervals, or JSON."""
    if as_json:
        print_json([asdict(row) for row in found])
        return
    columns = [
        Column(name) for name in ("pairs", "reward", "by the oracle's", "share", "95 % interval")
    ]
    rows = [
        (f"{row.kind} ({row.pairs})", row.reward, row.truth, f"{row.share:.3f}",
         f"{row.low:.3f} to {row.high:.3f}")
        for row in found
    ]  # fmt: skip
    print_table(columns, rows, "pairs in which a reward and the oracle prefer the same picture")
