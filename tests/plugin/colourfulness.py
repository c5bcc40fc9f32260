"""A reward of another package: it uses what ``bench.rewards.base`` offers, and nothing else."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from bench.rewards.base import Card, Reward, Scores, check_lengths


class Colourfulness(Reward):
    """Colourfulness M of Hasler and Suesstrunk (2003): 0 for grey, above 100 for extreme colours.

    ``M = sqrt(sd(rg)^2 + sd(yb)^2) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2)`` over the pixels, with
    ``rg = R - G`` and ``yb = (R + G) / 2 - B`` in 0 to 255. Source: "Measuring colourfulness in
    natural images", Proc. SPIE 5007, doi 10.1117/12.477378.
    """

    card = Card(
        name="colourfulness",
        scale="M of 0-255",
        range=(0, 110),
        weights=(),
        preprocessing="RGB",
        text=None,
        dtype="float64",
        trained_on=(),
        licence="Apache-2.0",
        origin="rule",
    )

    def load(self) -> None:
        """Nothing to read."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """The colourfulness of each image; prompts are not used."""
        check_lengths(images, prompts)
        return np.array([_colourfulness(image) for image in images], dtype=np.float32)


def _colourfulness(image: Image.Image) -> float:
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.float64), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
    spread, centre = opponents.std(axis=1), opponents.mean(axis=1)
    return float(np.hypot(*spread) + 0.3 * np.hypot(*centre))
