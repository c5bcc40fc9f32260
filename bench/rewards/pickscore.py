"""PickScore: human preference between images of one prompt, learnt from Pick-a-Pic."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Card
from bench.rewards.images import PREPROCESSING
from bench.rewards.towers import MODEL_FILES, TOKENIZER_FILE, TowerReward
from bench.rewards.weights import Weights


class PickScore(TowerReward):
    """``exp(logit_scale) * cosine`` of image and prompt (Kirstain et al. 2023): about 19 to 23.

    The softmax of two scores is the probability that the first image is preferred. Some papers
    print the bare cosine (0.19 to 0.23) or 100 times it. The tokenizer is that of LAION's
    ViT-H/14, from which the model was fine-tuned. The revisions are as several public projects
    record them; the hashes of the files are not known to this project.
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
            ),
            Weights(
                id="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
                files=(TOKENIZER_FILE,),
            ),
        ),
        preprocessing=PREPROCESSING,
        text="tokenizer.json, truncated to 77 tokens",
        trained_on=("Pick-a-Pic v1", "LAION-2B"),
        licence="code MIT; none stated for the weights",
        origin="official",
    )

    def _score_batch(
        self, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> NDArray[np.floating]:
        return self.tower.scale * self.tower.cosines(images, prompts)


class MiniPickScore(PickScore):
    """The same, fine-tuned from the miniature CLIP on simulated preferences of the world."""

    card = PickScore.card.model_copy(
        update={
            "name": "mini-pickscore",
            "range": (0.0, 100.0),
            "weights": (
                Weights(
                    id="package:bench.mini/weights/rewards/pickscore",
                    files=(*MODEL_FILES, TOKENIZER_FILE),
                ),
            ),
            "text": "tokenizer.json, truncated to 16 tokens",
            "trained_on": ("mini-world",),
            "licence": "as the project",
            "origin": "miniature",
        }
    )
