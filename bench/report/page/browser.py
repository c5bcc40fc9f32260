"""What the page's script searches: all scores and pictures, as plain data."""

from typing import Any

import numpy as np

from bench.report.figures.source import Source
from bench.report.numbers import number, scale
from bench.report.page.pairs import gains, signs, spreads
from bench.report.page.pictures import Pictures
from bench.results.analysis import Array


def browsed(source: Source, pictures: Pictures, room: int) -> dict[str, Any]:
    """Scores as whole numbers, of as many prompts as fit; at least one.

    Args:
        source: The result folder.
        pictures: Pictures that are on the page.
        room: How many scores may be given.
    """
    protocol = source.results.protocol
    named = {name for c in protocol.comparisons for name in (*c.on, *c.off)}
    arms = [a for a in protocol.all_arms() if a in protocol.arms or a.name in named]
    places = {arm.name: place for place, arm in enumerate(arms)}
    each = protocol.images.per_prompt * len(protocol.rewards) * sum(len(a.seeds) for a in arms)
    ids = protocol.prompts.ids[: max(1, room // each)]
    sign = signs(source)
    digits = {r: len(number(0.0, scale(source.results, r)).partition(".")[2]) for r in sign}
    return {
        "arms": [{"name": arm.name, "seeds": arm.seeds} for arm in arms],
        "comparisons": [
            {
                "name": c.name,
                "on": [places[name] for name in c.on],
                "off": [places[name] for name in c.off],
                "spreads": [*spreads(gains(source, c)).values()],
            }
            for c in protocol.comparisons
        ],
        "rewards": [{"name": r, "sign": sign[r], "digits": digits[r]} for r in sign],
        "primary": [*sign].index(protocol.primary),
        "tie": protocol.statistics.tie,
        "images": protocol.images.per_prompt,
        "prompts": [pictures.prompt(prompt) for prompt in ids],
        "scores": [
            [_whole(sign[r] * of_arms[arm.name][:, : len(ids)], digits[r]) for arm in arms]
            for r, of_arms in source.scores.items()
        ],
        "pictures": [pictures.numbers(arm, ids) for arm in arms],
    }


def _whole(scores: Array, digits: int) -> list[int | None]:
    """Scores in order of seed, prompt and image, times ``10 ** digits``; None where missing."""
    flat = np.round(scores.ravel() * 10**digits)
    return [None if np.isnan(value) else int(value) for value in flat]
