"""HPSv2: human preference learnt from HPDv2, a ranking of images of each prompt."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Card, miniature
from bench.rewards.clip import VIT_H_14
from bench.rewards.kit.pixels import LONGEST_SIDE
from bench.rewards.kit.text import Ids, encode, open_clip_tokens
from bench.rewards.kit.weights import Weights
from bench.rewards.towers import (
    CONFIG_FILE,
    MODEL_FILE,
    MODEL_FILES,
    TEXT_16,
    TEXT_77,
    TOKENIZER_FILE,
    TowerReward,
)

CHECKPOINTS = Weights(
    id="xswu/HPSv2",
    revision="697403c78157020a1ae59d23f111aa58ced35b0a",
    files=("HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"),
    sha256={
        "HPS_v2_compressed.pt": "07cb0d20626232204ca3a6ec53ff5984e7e53212a8a7b0e0ec2bac1bdaf125a1",
        "HPS_v2.1_compressed.pt": (
            "c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837"
        ),
    },
)
"""Revision and hashes as the repository's commit page shows them and other projects record them."""


class HPSv2(TowerReward):
    """HPSv2 (Wu et al. 2023) with version 2.1 of the weights: about 0.2 to 0.35.

    The bare ``cosine`` of image and prompt. The package's benchmark uses this version, and its
    tables print 100 times the cosine. The two versions are on different levels and must never share
    a column: by the authors' tables SDXL 0.9 scores 30.63 with 2.1 and 27.73 with 2.0, SD1.4 25.35
    and 26.95.
    """

    card = Card(
        name="hpsv2.1",
        scale="cosine",
        range=(0.1, 0.45),
        weights=(
            CHECKPOINTS.pick("HPS_v2.1_compressed.pt"),
            VIT_H_14.pick(CONFIG_FILE, TOKENIZER_FILE),
        ),
        preprocessing=LONGEST_SIDE.text,
        text=f"cleaned as open_clip does, {TEXT_77}",
        trained_on=("HPDv2/train", "LAION-2B"),
        answers="Which of several pictures of a prompt would hired annotators choose? Fit and "
        "looks are not told apart.",
        licence="Apache-2.0",
        origin="official",
        parameters=986_109_441,
    )
    preprocessing = LONGEST_SIDE
    model_file = "HPS_v2.1_compressed.pt"

    def tokens(self, prompts: Sequence[str]) -> Ids:
        """See :class:`bench.rewards.towers.TowerReward`."""
        return open_clip_tokens(self.tokenizer, prompts)

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.floating]:
        return self.cosines(images, prompts)


class HPSv20(HPSv2):
    """HPSv2 with version 2.0 of the weights, which the package's ``score`` uses by default."""

    card = HPSv2.card.model_copy(
        update={
            "name": "hpsv2.0",
            "weights": (
                CHECKPOINTS.pick("HPS_v2_compressed.pt"),
                VIT_H_14.pick(CONFIG_FILE, TOKENIZER_FILE),
            ),
        }
    )
    model_file = "HPS_v2_compressed.pt"


class MiniHPSv2(HPSv2):
    """HPSv2 fine-tuned from the miniature CLIP on simulated rankings of the world."""

    card = miniature(
        HPSv2.card,
        "hpsv2",
        (*MODEL_FILES, TOKENIZER_FILE),
        span=(-1.0, 1.0),
        text=TEXT_16,
        parameters=315_201,
    )
    model_file = MODEL_FILE

    def tokens(self, prompts: Sequence[str]) -> Ids:
        """See :class:`bench.rewards.towers.TowerReward`."""
        return encode(self.tokenizer, prompts)[0]
