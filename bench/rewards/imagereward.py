"""ImageReward: human preference learnt by a model that reads the prompt while it sees the image."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from bench.rewards.base import Card, Reward, Scores, check_lengths, miniature
from bench.rewards.kit.pixels import RESIZE_FIRST, preprocess
from bench.rewards.kit.text import encode, read_tokenizer
from bench.rewards.kit.weights import Weights
from bench.rewards.towers import CONFIG_FILE, MODEL_FILE, MODEL_FILES, TEXT_16, TOKENIZER_FILE
from trainers.machine.precision import BYTES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from bench.rewards.kit.blip import Rater


class ImageReward(Reward):
    """ImageReward 1.0 (Xu et al. 2023): about -2.5 to 2, 0 on average over its own data.

    BLIP with ViT-L and a linear head on the text encoder's first token. A prompt is cut to 35
    tokens, about 25 words. Revisions and hashes are as several public projects record them.
    """

    card = Card(
        name="imagereward",
        scale="(raw-mean)/std",
        range=(-2.5, 2.5),
        weights=(
            Weights(
                id="THUDM/ImageReward",
                revision="5736be03b2652728fb87788c9797b0570450ab72",
                files=("ImageReward.pt", "med_config.json"),
                sha256={
                    "ImageReward.pt": (
                        "d71dc8d4912bc633c06ab8ef1ef6a81e8199d4369f14b47b29baf1d19de561f6"
                    ),
                    "med_config.json": (
                        "d8b5029cc3c0124313d17009d043f0701bbe497f3721fa4ceb818720fe665326"
                    ),
                },
            ),
            Weights(
                id="google-bert/bert-base-uncased",
                revision="86b5e0934494bd15c9632b12f734a8a67f723594",
                files=(TOKENIZER_FILE,),
                sha256={
                    TOKENIZER_FILE: (
                        "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98"
                    )
                },
            ),
        ),
        preprocessing=RESIZE_FIRST.text,
        text="tokenizer.json of BERT, truncated to 35 tokens",
        trained_on=("ImageRewardDB/train", "DiffusionDB"),
        answers="How would trained annotators rank the picture among others of its prompt, by fit, "
        "fidelity and harmlessness together?",
        licence="Apache-2.0",
        origin="official",
        parameters=446_206_689,
    )
    dtypes = tuple(BYTES)
    config_file: ClassVar[str] = "med_config.json"
    model_file: ClassVar[str] = "ImageReward.pt"
    length: ClassVar[int] = 35
    """Tokens of a prompt."""
    pad: ClassVar[str] = "[PAD]"

    @property
    def rater(self) -> "Rater":
        """The loaded model."""
        from bench.rewards.kit.blip import Rater

        paths, dtype = self.files.paths, self.card.dtype
        return self.shared.model(
            self.model_key,
            self.memory,
            lambda: Rater(paths[self.config_file], paths[self.model_file], self.device, dtype),
        )

    @property
    def model_key(self) -> tuple[str, ...]:
        """See :class:`bench.rewards.base.Reward`."""
        sha256 = self.files.sha256
        files = (sha256[self.config_file], sha256[self.model_file])
        return ("blip", *files, self.device, self.card.dtype)

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer, padding to the published length."""
        words = range(1, self.rater.words + 1)  # Its embedding has some rows to spare.
        return read_tokenizer(self.files.paths[TOKENIZER_FILE], self.length, self.pad, words)

    def load(self) -> None:
        """Read the weights; see :class:`bench.rewards.base.Reward`."""
        _ = self.rater

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        """Score image ``i`` against prompt ``i``; see :class:`bench.rewards.base.Reward`."""
        check_lengths(images, prompts)
        rater = self.rater
        scores = np.empty(len(images), np.float32)
        if not images:
            return scores
        pixels = preprocess(images, RESIZE_FIRST, rater.side, self.shared)
        ids, mask = encode(self.tokenizer, prompts)
        tokens, place = self.shared.rows(self.model_key, pixels, rater.see, self.batch_size)
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            scores[part] = rater.rate(tokens[place[part]], ids[part], mask[part])
        return scores


class MiniImageReward(ImageReward):
    """ImageReward trained on simulated rankings of the miniature world."""

    card = miniature(
        ImageReward.card,
        "imagereward",
        (*MODEL_FILES, TOKENIZER_FILE),
        span=(-4.0, 4.0),
        text=TEXT_16,
        parameters=547_553,
    )
    config_file = CONFIG_FILE
    model_file = MODEL_FILE
    length = 16
    pad = "<|endoftext|>"
