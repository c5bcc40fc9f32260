"""HPSv2 and ImageReward by their published packages, which run in an environment of their own.

For comparison and doubt: the rewards without ``-official`` in their names give the same numbers,
share models and batches, and need no second environment.
"""

import tempfile
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from bench.official.build import python_of
from bench.official.client import Worker, environment, versions
from bench.rewards import hpsv2, imagereward
from bench.rewards.base import Reward, Scores, check_lengths
from trainers.files import canonical_json, sha256_text
from trainers.input.image import to_rgb, upright

START = 900.0
"""Seconds granted to a call for imports and for reading a checkpoint."""
EACH = 120.0
"""Seconds granted for each image."""
GROUP = 32
"""Images in one call."""
PNG = ("1", "L", "LA", "P", "RGB", "RGBA")
"""Modes that a PNG file keeps, palette and transparency included; TIFF keeps the others."""


class OfficialReward(Reward):
    """A reward that a published package computes.

    Official are the package's function for scoring, all that it calls, and the tokenizer and
    preprocessing in it. Ours: images are made upright and reach it as files without loss, prompts
    that are equal are scored together, and the weights are local files instead of downloads
    (``bench/official/worker.py`` says how). The package scores one image at a time.
    """

    official: ClassVar[str]
    """Name of the reward in the worker."""

    @staticmethod
    def shown(image: Image.Image) -> Image.Image:
        """The image that the package is given."""
        return to_rgb(image)

    @property
    def signature(self) -> str:
        """As of every reward; the digest also covers the packages' versions and the kind of device.

        On the device depends the precision that the packages choose.

        Raises:
            UserError: If the environment is missing.
        """
        *told, digest = super().signature.split("|")
        found = canonical_json([digest, versions(environment()), self.device.partition(":")[0]])
        return "|".join([*told, sha256_text(found)[:12]])

    @property
    def model_key(self) -> Hashable:
        """See :class:`bench.rewards.base.Reward`."""
        return ("official", self.signature, self.device)

    @property
    def worker(self) -> Worker:
        """The process that scores, started unless it runs."""
        paths, device = self.files.paths, self.device
        python = python_of(environment())
        return self.shared.model(self.model_key, self.memory, lambda: Worker(python, paths, device))

    def load(self) -> None:
        """Start the worker and let it import the package; see :class:`Reward`."""
        self.worker.ask(self.official, [], [], START)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Score image ``i`` against prompt ``i``; see :class:`Reward`.

        Raises:
            UserError: If the package could not score them, or the environment is missing.
            RuntimeError: If the worker died or hung; the message holds its last words.
        """
        check_lengths(images, prompts)
        scores = np.empty(len(images), np.float32)
        worker = self.worker
        for prompt in dict.fromkeys(prompts):
            positions = [i for i, other in enumerate(prompts) if other == prompt]
            for start in range(0, len(positions), GROUP):
                some = positions[start : start + GROUP]
                scores[some] = self._ask(worker, [images[i] for i in some], prompt)
        return scores

    def _ask(self, worker: Worker, images: list[Image.Image], prompt: str) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.png" for number in range(len(images))]
            for image, path in zip(images, paths, strict=True):
                shown = self.shown(image)
                shown.save(path, "PNG" if shown.mode in PNG else "TIFF", compress_level=1)
            seconds = START + EACH * len(images)
            return worker.ask(self.official, paths, [prompt] * len(images), seconds)


_HPS = {"preprocessing": "upright, RGB, then hpsv2's own", "text": "hpsv2's own tokenizer"}


class HPSv2Official(OfficialReward):
    """HPSv2.1 by ``hpsv2.img_score.score``: the bare cosine.

    The package reads its checkpoint anew for each call, so that many prompts cost as many readings.
    It asks for CUDA's autocast: half precision on a GPU, float32 on the CPU. It refuses alpha and
    takes the numbers of a palette's colours for grey, so images are made RGB before.
    """

    official = "hpsv2.1"
    card = hpsv2.HPSv2.card.model_copy(update={"name": "hpsv2.1-official", **_HPS})


class HPSv20Official(HPSv2Official):
    """The same with version 2.0 of the weights."""

    official = "hpsv2.0"
    card = hpsv2.HPSv20.card.model_copy(update={"name": "hpsv2.0-official", **_HPS})


class ImageRewardOfficial(OfficialReward):
    """ImageReward 1.0 by ``ImageReward.score`` of the package image-reward, in float32.

    The package resizes an image as its file holds it, and makes it RGB after that: palettes and
    alpha reach it as they are.
    """

    official = "imagereward"
    card = imagereward.ImageReward.card.model_copy(
        update={
            "name": "imagereward-official",
            "preprocessing": "upright, then image-reward's own",
            "text": "BERT's tokenizer as image-reward uses it",
            "version": 2,
        }
    )

    @staticmethod
    def shown(image: Image.Image) -> Image.Image:
        """See the base class."""
        return upright(image)
