"""The people whose words, ratings and choices train the miniature rewards. All of them err.

They know the oracle's judgement; a reward sees nothing but what they say.
"""

import numpy as np
import torch
from torch import Tensor

from bench.mini.build.rewards.data import SCENES, wrong
from bench.world.scenes import Scene

TEMPERATURE = 0.05
"""Difference of oracle scores at which a preference is e to 1."""
SLIPS = 0.05
"""Share of choices, and of rankings, in which two pictures are exchanged by mistake."""
RATING_NOISE = 0.7
"""Deviation of a rating, which runs from 1 to 10."""
CAREFUL = (0.03, 0.3)
"""Share of descriptions with one wrong word, of perfect pictures and of the worst, by people who
are asked to name what they see."""
CARELESS = (0.02, 0.6)
"""The same of captions that are found with pictures, from which CLIP learns. That bad pictures have
worse captions is all it can learn of craft."""


def describe(
    shown: Tensor, craft: Tensor, misnamed: tuple[float, float], rng: np.random.Generator
) -> list[Scene]:
    """Descriptions of pictures ``[n]``: scenes, with one wrong word in a share ``misnamed``.

    What is faded, blurred or cluttered is named wrongly more often.
    """
    low, high = misnamed
    mistaken = rng.random(len(shown)) < (high + (low - high) * craft.numpy())
    scenes = [SCENES[i] for i in shown.tolist()]
    return [wrong(s, rng) if miss else s for s, miss in zip(scenes, mistaken, strict=True)]


def rate(craft: Tensor, rng: np.random.Generator) -> Tensor:
    """Ratings from 1 to 10 of pictures of some craft ``[n]``, whatever their captions."""
    noise = torch.from_numpy(rng.normal(0, RATING_NOISE, len(craft)))
    return (1 + 9 * craft + noise).clamp(1, 10).float()


def rank(score: Tensor, annotators: int, rng: np.random.Generator) -> Tensor:
    """Rankings of groups of pictures ``[n, size]`` by some annotators: ``bool[n, a, size, size]``.

    Entry ``i, j`` tells whether an annotator ranks picture ``i`` above ``j``. Rankings follow
    Plackett and Luce, whose model of two pictures is that of Bradley and Terry: the score in
    units of the temperature, and Gumbel noise. Slips exchange the first two pictures.
    """
    shape = (len(score), annotators, score.shape[1])
    liking = score[:, None] / TEMPERATURE + torch.from_numpy(rng.gumbel(size=shape))
    slip = torch.from_numpy(rng.random(shape[:2]) < SLIPS)[..., None]
    exchanged = liking[..., [1, 0, *range(2, shape[2])]]
    liking = torch.where(slip, exchanged, liking)
    return liking[..., :, None] > liking[..., None, :]
