"""The oracle as a reward: the truth of the miniature world, read from the pixels by rules."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from bench.rewards.base import Card, Reward, Scores, check_lengths
from bench.world.oracle import CRAFT_SHARE, FIT_WEIGHTS, judge
from bench.world.scenes import SIDE, Scene, parse
from trainers.errors import UserError
from trainers.input.image import to_rgb


class Oracle(Reward):
    """Truth of the miniature world: how well an image fits its caption, how cleanly it is made."""

    card = Card(
        name="oracle",
        scale=f"{1 - CRAFT_SHARE:g}*fit+{CRAFT_SHARE:g}*craft",
        range=(0.0, 1.0),
        weights=(),
        preprocessing=f"RGB, {SIDE}x{SIDE}; fit weighs {FIT_WEIGHTS}",
        text="the words of a miniature-world caption",
        dtype="float64",
        trained_on=(),
        answers="Does the picture show what its caption says, and is it cleanly made? The truth of "
        "the miniature world.",
        licence="as the project",
        origin="rule",
    )

    def load(self) -> None:
        """Nothing to read."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Score image ``i`` against prompt ``i``; see :class:`Reward`."""
        check_lengths(images, prompts)
        pairs = zip(images, prompts, strict=True)
        return np.array([_score(image, _scene(p)) for image, p in pairs], dtype=np.float32)


def _score(image: Image.Image, scene: Scene) -> float:
    if image.size != (SIDE, SIDE):
        raise UserError(
            f"the oracle expected an image of {SIDE}x{SIDE} pixels, got "
            f"{image.width}x{image.height}: score images of the miniature world, or drop 'oracle'"
        )
    return judge(np.asarray(to_rgb(image)), scene).score


def _scene(prompt: str) -> Scene:
    try:
        return parse(prompt)
    except ValueError as error:
        raise UserError(str(error)) from error
