"""Conditional fine-tuning: which caption each image is shown under."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.backbones import Condition
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.objectives import Batch
from trainers.objectives.csft import CSFT

Make = Callable[..., Batch]


def test_the_error_of_every_image(singles: Make, slopes: Any) -> None:
    """Whether it is preferred or not; with a slope of 1."""
    assert CSFT().loss(singles(1.7)).tolist() == [0.100, 0.140, 0.102, 0.139]
    assert slopes(CSFT(), singles(1.7)) == [[1.0] * 4]
    assert (CSFT.images, CSFT.referenced, CSFT().winners) == (1, False, 0.5)


def test_captions_say_which_image_it_is(
    configure: Callable[..., TrainConfig], backbone: StableDiffusion, latents: Pairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Text by text: good or bad and the caption, or nothing at all where it is dropped."""
    seen: list[Condition] = []
    predict = backbone.predict

    def spy(network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        seen.append(condition)
        return predict(network, noisy, timesteps, condition)

    monkeypatch.setattr(backbone, "predict", spy)
    config = configure(objective={"name": "csft"}, batch_size=16, caption_dropout=0.3)
    trainer = Trainer(config, backbone, latents)
    trainer.advance()
    draws = trainer.stream.at(0, 16)
    texts = [
        "" if drop < 0.3 else ("good image, " if image < 0.5 else "bad image, ") + caption
        for drop, image, caption in zip(
            draws.drop, draws.image, [latents.index.prompts[r] for r in draws.rows], strict=True
        )
    ]
    assert {text[:4] for text in texts} == {"", "good", "bad "}
    [told] = seen
    torch.testing.assert_close(told["text"], backbone.encode_prompts(texts)["text"])
    assert trainer.reference is None


def test_other_objectives_have_no_prefix(
    configure: Callable[..., TrainConfig], backbone: StableDiffusion, latents: Pairs
) -> None:
    trainer = Trainer(configure(objective={"name": "sft"}, batch_size=4), backbone, latents)
    draws = trainer.stream.at(0, 4)
    told = trainer.examples.condition(draws.rows, draws.drop, trainer.examples.sides(draws), 1)
    captions = [latents.index.prompts[row] for row in draws.rows]
    torch.testing.assert_close(told["text"], backbone.encode_prompts(captions)["text"])
