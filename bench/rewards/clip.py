"""CLIP score: how well an image fits its prompt, as CLIP sees it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Card, miniature
from bench.rewards.kit.pixels import RESIZE_FIRST
from bench.rewards.kit.text import Ids, open_clip_tokens
from bench.rewards.kit.weights import Weights
from bench.rewards.towers import MODEL_FILES, TEXT_16, TEXT_77, TOKENIZER_FILE, TowerReward

VIT_L_14 = Weights(
    id="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    files=(*MODEL_FILES, TOKENIZER_FILE),
    sha256={
        "config.json": "8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a",
        "model.safetensors": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        "tokenizer.json": "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4",
    },
)
"""Revision and hashes as several public projects record them, independently of each other."""

VIT_H_14 = Weights(
    id="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    files=(*MODEL_FILES, TOKENIZER_FILE),
    sha256={
        "model.safetensors": "036e6e2bd49697511f4f8b8cb5ee465f93025f7a69a145eadeb9a881ace9b18d"
    },
)
"""Revision and hash as several public projects record them; those of the two small files are not
known to this project, so they are recorded when they are first seen."""


class CLIPScore(TowerReward):
    """CLIP score by ViT-L/14 of OpenAI (Hessel et al. 2021, without their factor and clipping).

    ``100 * cosine`` of image and prompt. Many preference-optimisation papers use ViT-H/14 of LAION
    instead, which is :class:`CLIPScoreH14`: its values are on another level and must not be
    compared with these.
    """

    card = Card(
        name="clip",
        scale="100*cosine",
        range=(10.0, 35.0),
        weights=(VIT_L_14,),
        preprocessing=RESIZE_FIRST.text,
        text=TEXT_77,
        trained_on=("WIT-400M",),
        answers="Does the picture go with the words of the prompt? Nearly blind to how well it is "
        "made, and to how things in it are placed.",
        licence="MIT",
        origin="official",
        parameters=427_616_513,
    )

    preprocessing = RESIZE_FIRST

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.floating]:
        return 100 * self.cosines(images, prompts)


class CLIPScoreH14(CLIPScore):
    """CLIP score by ViT-H/14 of LAION, as open_clip computes it: the CLIP score of most papers.

    Prompts are cleaned as open_clip does.
    """

    card = CLIPScore.card.model_copy(
        update={
            "name": "clip-h14",
            "range": (10.0, 45.0),
            "weights": (VIT_H_14,),
            "text": f"cleaned as open_clip does, {TEXT_77}",
            "trained_on": ("LAION-2B",),
            "parameters": 986_109_441,
        }
    )

    def tokens(self, prompts: Sequence[str]) -> Ids:
        """See :class:`bench.rewards.towers.TowerReward`."""
        return open_clip_tokens(self.tokenizer, prompts)


class MiniCLIPScore(CLIPScore):
    """CLIP score by a model that was trained from nothing on the miniature world."""

    card = miniature(
        CLIPScore.card,
        "clip",
        (*MODEL_FILES, TOKENIZER_FILE),
        span=(0.0, 100.0),
        text=TEXT_16,
        parameters=315_201,
    )
