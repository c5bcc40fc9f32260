"""PickScore: human preference between images of one prompt, learnt from Pick-a-Pic."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Card, miniature
from bench.rewards.clip import VIT_H_14
from bench.rewards.kit.pixels import RGB_FIRST
from bench.rewards.kit.weights import Weights
from bench.rewards.towers import MODEL_FILES, TEXT_16, TEXT_77, TOKENIZER_FILE, TowerReward


class PickScore(TowerReward):
    """PickScore v1 (Kirstain et al. 2023): about 19 to 23.

    ``exp(logit_scale) * cosine`` of image and prompt. The softmax of two scores is the probability
    that the first image is preferred. Some papers print the bare cosine (0.19 to 0.23) or 100 times
    it. The tokenizer is that of LAION's ViT-H/14, from which the model was fine-tuned. The revision
    and the hash are as several public projects record them; that of the config is recorded when it
    is first seen.
    """

    card = Card(
        name="pickscore",
        scale="exp(logit_scale)*cosine",
        range=(15.0, 26.0),
        weights=(
            Weights(
                id="yuvalkirstain/PickScore_v1",
                revision="a4e4367c6dfa7288a00c550414478f865b875800",
                files=MODEL_FILES,
                sha256={
                    "model.safetensors": (
                        "ef31ef6fc5ff4d9bb90dd232df4e145887ba62c5a03aa2841415f8c25f18d52e"
                    )
                },
            ),
            VIT_H_14.pick(TOKENIZER_FILE),
        ),
        preprocessing=RGB_FIRST.text,
        text=TEXT_77,
        trained_on=("Pick-a-Pic/train", "LAION-2B"),
        answers="Which of two pictures that models made of a prompt would users of a web "
        "application choose? Fit and looks are not told apart.",
        licence="code MIT; none stated for the weights",
        origin="official",
        parameters=986_109_441,
    )

    preprocessing = RGB_FIRST

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.floating]:
        return self.tower.scale * self.cosines(images, prompts)


class MiniPickScore(PickScore):
    """PickScore fine-tuned from the miniature CLIP on simulated preferences of the world."""

    card = miniature(
        PickScore.card,
        "pickscore",
        (*MODEL_FILES, TOKENIZER_FILE),
        span=(0.0, 100.0),
        text=TEXT_16,
        parameters=315_201,
    )
