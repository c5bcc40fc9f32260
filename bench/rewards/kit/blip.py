"""ImageReward's model: BLIP's image and text encoder with cross-attention, and a head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from bench.rewards.kit.models import Head
from bench.rewards.kit.open_clip import blip_from_imagereward, read_converted
from bench.rewards.kit.pixels import Pixels
from bench.rewards.kit.text import Ids
from trainers.backbones.configs import read_config, refusing, shown
from trainers.backbones.folders import refuse_overflow
from trainers.errors import UserError
from trainers.input.tensors import Tensors, fit, read_tensors
from trainers.machine.precision import torch_dtype

CONVERSION = 1
"""Raised when the conversion of ImageReward's checkpoint changes."""
HEAD_WIDTH = 64
"""Width of an attention head of every ViT of BLIP."""
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and deviation of the raw reward on ImageReward's data, as its package states them."""


class Blip(nn.Module):
    """Image tokens, a text encoder that looks at them, and a rating of its first token."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        """Create a model with random weights."""
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = Head(text.hidden_size)

    def see(self, pixels: Tensor) -> Tensor:
        """Tokens ``[n, l, d]`` of pixels ``[n, 3, side, side]``."""
        tokens: Tensor = self.vision(pixels).last_hidden_state
        return tokens

    def rate(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Raw ratings ``[n]`` of image tokens and token ids, both ``[n, ...]``."""
        hidden = self.text(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=torch.ones(tokens.shape[:2], device=tokens.device),
            is_decoder=False,
        ).last_hidden_state
        ratings: Tensor = self.head(hidden[:, 0].float())
        return ratings


class Rater:
    """A loaded :class:`Blip` with the scale of its ratings."""

    def __init__(self, config: Path, weights: Path, device: str, dtype: str) -> None:
        """Load the model.

        Args:
            config: ``med_config.json`` of ImageReward beside its checkpoint, or beside safetensors
                a JSON object with ``vision``, ``text``, ``mean`` and ``std``.
            weights: The tensors.
            device: A torch device.
            dtype: Name of the precision of the encoders; the head has float32, as published.

        Raises:
            UserError: If the files do not hold such a model.
        """
        self.device = device
        self.dtype = torch_dtype(dtype)
        given = read_config(config)
        if weights.suffix == ".safetensors":
            tensors = read_tensors(weights)
        else:
            tensors = read_converted(weights, blip_from_imagereward, CONVERSION)
            vision = _vision_config(tensors, weights)
            given = {"vision": vision, "text": given, "mean": MEAN, "std": STD}
        with refusing(config, f"the config of ImageReward's model with the tensors of {weights}"):
            self.model = _assemble(given, tensors, weights, config)
        refuse_overflow(self.model.to(self.dtype), weights, self.dtype)
        self.model.to(device).eval().requires_grad_(False)
        self.model.head.float()
        self.side: int = given["vision"]["image_size"]
        self.words: int = self.model.text.config.vocab_size
        self.mean, self.std = _scale(given, config)

    @torch.inference_mode()
    def see(self, pixels: Pixels) -> NDArray[np.float32]:
        """Image tokens ``[n, l, d]`` of pixels ``[n, 3, side, side]``."""
        given = torch.from_numpy(pixels).to(self.device, self.dtype)
        tokens: NDArray[np.float32] = self.model.see(given).float().cpu().numpy()
        return tokens

    @torch.inference_mode()
    def rate(self, tokens: NDArray[np.float32], ids: Ids, mask: Ids) -> NDArray[np.float32]:
        """Rewards ``[n]``: 0 on average and of deviation 1 on the data they were scaled by."""
        seen = torch.from_numpy(tokens).to(self.device, self.dtype)
        told, real = (torch.from_numpy(values).to(self.device) for values in (ids, mask))
        raw: NDArray[np.float32] = self.model.rate(seen, told, real).cpu().numpy()
        return (raw - np.float32(self.mean)) / np.float32(self.std)


def _vision_config(tensors: Tensors, weights: Path) -> dict[str, Any]:
    """Configuration of the ViT that a checkpoint of ImageReward holds, from its shapes."""
    try:
        width, _, patch, _ = tensors["vision.embeddings.patch_embedding.weight"].shape
        cells = tensors["vision.embeddings.position_embedding"].shape[1] - 1
    except KeyError as error:
        raise UserError(
            f"{weights}: expected the checkpoint of ImageReward, got one without {error.args[0]}: "
            "fetch the file again"
        ) from error
    layers = {name.split(".")[3] for name in tensors if name.startswith("vision.encoder.layers.")}
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // HEAD_WIDTH,
        "image_size": patch * round(cells**0.5),
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
    }


def _scale(given: Mapping[str, Any], config: Path) -> tuple[float, float]:
    """Mean and deviation of raw ratings."""
    mean, std = (given.get(key) for key in ("mean", "std"))
    if type(mean) not in (int, float) or type(std) not in (int, float) or not float(std or 0) > 0:
        raise UserError(
            f"{config}: expected numbers as mean and std, the latter above 0, got {shown(mean)} "
            f"and {shown(std)}: fetch the file again"
        )
    return float(mean or 0), float(std or 0)


def _assemble(given: Mapping[str, Any], tensors: Tensors, weights: Path, config: Path) -> Blip:
    vision = BlipVisionConfig(**given["vision"])
    text = BlipTextConfig(**{**given["text"], "encoder_hidden_size": vision.hidden_size})
    with torch.device("meta"):  # Random weights would cost time and draw from the global state.
        model = Blip(vision, text)
    fit(tensors, {n: tuple(t.shape) for n, t in model.state_dict().items()}, weights, config)
    model.load_state_dict(tensors, assign=True)
    # No weight, so not in the state.
    model.text.embeddings.position_ids = torch.arange(text.max_position_embeddings)[None]
    left = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not left, f"buffers without values: {left}"
    return model
