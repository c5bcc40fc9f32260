"""Aesthetic score: how much people like an image, whatever its prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.rewards.base import Card, miniature
from bench.rewards.clip import VIT_L_14
from bench.rewards.kit.pixels import RESIZE_FIRST
from bench.rewards.kit.weights import Weights
from bench.rewards.towers import MODEL_FILES, TowerReward

if TYPE_CHECKING:
    from bench.rewards.kit.models import Head


class Aesthetic(TowerReward):
    """LAION's aesthetic predictor V2 on CLIP ViT-L/14: about 1 to 10, mostly 4 to 7.

    The rating is linear in the image's CLIP features of length 1. The head is read from a mirror
    on the Hub; its hash, recorded alike by several public projects, is that of the file
    ``sac+logos+ava1-l14-linearMSE.pth`` in christophschuhmann/improved-aesthetic-predictor.
    """

    card = Card(
        name="aesthetic",
        scale="rating 1-10",
        range=(1.0, 10.0),
        weights=(
            VIT_L_14.pick(*MODEL_FILES),
            Weights(
                id="camenduru/improved-aesthetic-predictor",
                files=("sac+logos+ava1-l14-linearMSE.pth",),
                sha256={
                    "sac+logos+ava1-l14-linearMSE.pth": (
                        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
                    )
                },
            ),
        ),
        preprocessing=RESIZE_FIRST.text,
        text=None,
        trained_on=("SAC", "LAION-Logos", "AVA", "WIT-400M"),
        answers="How highly would people rate the looks of the picture? Blind to the prompt.",
        licence="Apache-2.0 (head), MIT (CLIP)",
        origin="official",
        parameters=428_544_482,
    )
    preprocessing = RESIZE_FIRST
    _head: "Head | None" = None

    @property
    def head(self) -> "Head":
        """The loaded head."""
        from bench.rewards.kit.models import load_head

        if self._head is None:
            name = self.card.weights[-1].files[-1]
            self._head = load_head(self.files.paths[name], self.device)
        return self._head

    def load(self) -> None:
        """Read the weights; see :class:`bench.rewards.base.Reward`."""
        super().load()
        _ = self.head

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.floating]:
        return self.head.rate(self.image_features(images))


class MiniAesthetic(Aesthetic):
    """Aesthetic on the miniature CLIP, trained on simulated ratings of the world's craft."""

    card = miniature(
        Aesthetic.card,
        "aesthetic",
        (*MODEL_FILES, "head.safetensors"),
        span=Aesthetic.card.range,
        text=None,
        parameters=522_274,
    )
