"""The towers of the miniature rewards, randomly initialised."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from bench.mini.build.tokenizer import LENGTH
from bench.rewards.kit.pixels import MEAN, STD
from bench.world import scenes as world
from trainers.seeds import derive

WIDTH = 64
PATCH = 8


def new_clip(seed: int, vocabulary: int) -> CLIPModel:
    """A randomly initialised CLIP model for 64 px and 16 tokens."""
    end = vocabulary - 1
    both = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=4)
    text = dict(vocab_size=vocabulary, max_position_embeddings=LENGTH, num_hidden_layers=2)
    text |= dict(bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
    vision = dict(image_size=world.SIDE, patch_size=PATCH, num_hidden_layers=3)
    config = CLIPConfig(text_config=both | text, vision_config=both | vision, projection_dim=WIDTH)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(derive(seed, "clip init"))
        model = CLIPModel(config)
    model.vision_model.embeddings.position_embedding.weight.data[1:] = place_codes()
    return model


def place_codes() -> Tensor:
    """Smooth codes of the places of patches ``[64, 64]``, to start position embeddings from.

    From random ones an image tower takes several times as long to see where an object is.
    """
    cells, frequency = torch.arange(world.SIDE // PATCH), torch.arange(1, WIDTH // 4 + 1)
    angle = math.pi / 2 * frequency * (cells[:, None] + 0.5) / len(cells)
    code = torch.cat([angle.sin(), angle.cos()], 1) / frequency.sqrt().repeat(2)
    return 0.7 * code[torch.cartesian_prod(cells, cells)].flatten(1)


def normalised(pictures: Tensor) -> Tensor:
    """Pictures ``uint8[n, 3, 64, 64]`` as the towers see them."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (pictures.float() / 255 - mean) / std


def see(model: CLIPModel, pictures: Tensor) -> Tensor:
    """Image features of length 1, ``[n, d]``."""
    pooled = model.vision_model(normalised(pictures)).pooler_output
    return F.normalize(model.visual_projection(pooled), dim=-1)


def read(model: CLIPModel, tokens: Tensor) -> Tensor:
    """Text features of length 1, ``[n, d]``."""
    pooled = model.text_model(tokens).pooler_output
    return F.normalize(model.text_projection(pooled), dim=-1)
