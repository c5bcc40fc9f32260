"""The miniature BLIP of ImageReward: a text encoder that looks at the picture while it reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig

from bench.mini.build.rewards.data import INDEX, Data, draw_batch, wrong
from bench.mini.build.rewards.losses import GROUPS, PAIRS, Loss
from bench.mini.build.rewards.people import CAREFUL, describe, rank
from bench.mini.build.rewards.towers import PATCH, WIDTH, normalised, place_codes
from bench.mini.build.tokenizer import LENGTH
from bench.rewards.kit.blip import Blip
from bench.rewards.towers import CONFIG_FILE, MODEL_FILE
from bench.world import scenes as world
from trainers.files import write_text
from trainers.seeds import derive, numpy_generator

PLACES = [2, 3, 4, 7, 10]
"""Where the words of size, colour, shape, place and background stand among a caption's tokens."""
Encoded = tuple[Tensor, Tensor]
"""Token ids and mask ``[scenes, 16]`` of every caption of the world."""


def configs(vocabulary: int) -> dict[str, dict[str, Any]]:
    """Arguments of the configurations of the two encoders, for 64 px and 16 tokens."""
    both = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
    vision: dict[str, float] = {
        "image_size": world.SIDE,
        "patch_size": PATCH,
        "num_hidden_layers": 3,
    }
    # The default deviation of the image encoder's first weights is 1e-10.
    vision |= {"initializer_range": 0.02}
    text = {"vocab_size": vocabulary, "max_position_embeddings": LENGTH, "num_hidden_layers": 2}
    end = vocabulary - 1
    text |= {"bos_token_id": end - 1, "eos_token_id": end, "sep_token_id": end, "pad_token_id": end}
    text |= {"encoder_hidden_size": WIDTH}
    return {"vision": both | vision, "text": both | text}


def new_blip(seed: int, vocabulary: int) -> Blip:
    """A randomly initialised model."""
    given = configs(vocabulary)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(seed, "blip init"))
        model = Blip(BlipVisionConfig(**given["vision"]), BlipTextConfig(**given["text"]))
    model.vision.embeddings.position_embedding.data[0, 1:] = place_codes()
    return model


def _read(model: Blip, pictures: Tensor, captions: Tensor, encoded: Encoded) -> Tensor:
    """Text states ``[n * k, 16, d]``, of captions ``int64[n, k]`` before pictures ``[n, ...]``."""
    model.eval()  # dropout would draw from the global generator
    tokens = model.see(normalised(pictures)).repeat_interleave(captions.shape[1], 0)
    ids, mask = (part[captions.flatten()] for part in encoded)
    states: Tensor = model.text(
        input_ids=ids,
        attention_mask=mask,
        encoder_hidden_states=tokens,
        encoder_attention_mask=torch.ones(tokens.shape[:2]),
        is_decoder=False,
    ).last_hidden_state
    return states


def _rate(model: Blip, pictures: Tensor, captions: Tensor, encoded: Encoded) -> Tensor:
    """Raw ratings ``[n, k]`` of pictures ``[n, ...]``, each with captions ``int64[n, k]``."""
    states = _read(model, pictures, captions, encoded)
    ratings: Tensor = model.head(states[:, 0]).unflatten(0, captions.shape)
    return ratings


def matching_loss(model: Blip, words: nn.Linear, data: Data, encoded: Encoded, seed: int) -> Loss:
    """What BLIP learns before ImageReward begins with it: which captions fit a picture.

    The cross-entropy of a picture's description among some with wrong words. Alone it stays at
    chance for long, since neither caption nor picture tells anything without the other. So at the
    place of each word a linear layer says which word should stand there, and whether it does.
    """
    choices = [*map(len, world.WORDS.values()), 1]

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "matching step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        named = batch["named"]
        told = describe(batch["shown"][named], batch["craft"][named], CAREFUL, rng)
        rows = [_misread(scene, rng) for scene in told]
        captions = torch.tensor([[INDEX[scene] for scene in row] for row in rows])
        states = _read(model, batch["pictures"][named], captions, encoded)
        ratings = model.head(states[:, 0]).unflatten(0, captions.shape)
        total = F.cross_entropy(ratings, torch.zeros(len(rows), dtype=torch.long))
        *guesses, fits = words(states[:, PLACES]).split(choices, -1)
        for i, (name, known) in enumerate(world.WORDS.items()):
            true = [known.index(getattr(row[0], name)) for row in rows for _ in row]
            right = [getattr(row[0], name) == getattr(scene, name) for row in rows for scene in row]
            total = total + F.cross_entropy(guesses[i][:, i], torch.tensor(true)) / len(PLACES)
            total = total + F.binary_cross_entropy_with_logits(
                fits[:, i, 0], torch.tensor(right).float()
            )
        return total

    return loss


def _misread(scene: world.Scene, rng: np.random.Generator) -> list[world.Scene]:
    """The scene itself, one with a wrong word, and one with up to three."""
    once, thrice = wrong(scene, rng), scene
    for _ in range(3):
        thrice = wrong(thrice, rng)
    return [scene, once, thrice]


def imagereward_loss(model: Blip, data: Data, encoded: Encoded, seed: int) -> Loss:
    """ImageReward's loss: ``-log sigmoid(f(better) - f(worse))`` for all pairs of a ranking."""

    def loss(step: int, shard: int) -> Tensor:
        rng = numpy_generator(seed, "imagereward step", step, shard)
        batch = draw_batch(data, GROUPS, rng)
        above = rank(batch["score"], 1, rng)[:, 0, *PAIRS]
        size = batch["pictures"].shape[1]
        captions = batch["told"].repeat_interleave(size)[:, None]
        ratings = _rate(model, batch["pictures"].flatten(0, 1), captions, encoded)
        margin = ratings.view(-1, size)[:, PAIRS[0]] - ratings.view(-1, size)[:, PAIRS[1]]
        return -F.logsigmoid(torch.where(above, margin, -margin)).mean()

    return loss


@torch.inference_mode()
def scale_of(model: Blip, held_back: Data, encoded: Encoded) -> tuple[float, float]:
    """Mean and deviation of raw ratings of groups that were not trained on."""
    captions = held_back["told"].repeat_interleave(held_back["pictures"].shape[1])[:, None]
    ratings = _rate(model, held_back["pictures"].flatten(0, 1), captions, encoded)
    return float(ratings.mean()), float(ratings.std())


def save_blip(model: Blip, scale: tuple[float, float], vocabulary: int, folder: Path) -> None:
    """Write configuration and tensors, in half precision, into ``folder``."""
    mean, std = scale
    described = {**configs(vocabulary), "mean": mean, "std": std}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG_FILE, json.dumps(described, indent=1) + "\n")
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / MODEL_FILE)
