"""What the weights of a reward are loaded into: a CLIP model, and a head on features.

Of the modules that list rewards none imports this one; it imports torch.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from bench.rewards.kit.open_clip import clip_from_open_clip, read_converted
from bench.rewards.kit.pixels import Pixels
from bench.rewards.kit.text import Ids
from trainers.backbones.configs import expect_sizes, read_config, refusing
from trainers.backbones.folders import refuse_overflow, refuse_unloaded
from trainers.errors import UserError
from trainers.input.tensors import fit, read_tensors, read_weights
from trainers.machine.precision import torch_dtype

CONVERSION = 1
"""Raised when the conversion of open_clip's checkpoints changes."""


class Tower:
    """A CLIP model."""

    def __init__(self, config: Path, weights: Path, device: str, dtype: str) -> None:
        """Load a CLIP model that a ``config.json`` describes.

        Args:
            config: The file in the layout of transformers.
            weights: Its tensors as safetensors, or a checkpoint of open_clip.
            device: A torch device.
            dtype: Name of the precision to compute in.

        Raises:
            UserError: If the weights are not exactly those of the model that the config describes.
        """
        self.device = device
        self.dtype = torch_dtype(dtype)
        self.model = _load_model(config, weights, device, self.dtype)
        self.side: int = self.model.config.vision_config.image_size
        self.length: int = self.model.config.text_config.max_position_embeddings
        self.words: int = self.model.config.text_config.vocab_size
        # In float64, so that a model of lower precision rounds in its layers only.
        self.scale = float(self.model.logit_scale.double().exp())

    @torch.inference_mode()
    def see(self, pixels: Pixels) -> NDArray[np.float64]:
        """Projected features of length 1 of pixels ``[n, 3, side, side]``: ``[n, d]``."""
        given = torch.from_numpy(pixels).to(self.device, self.dtype)
        pooled = self.model.vision_model(given).pooler_output
        return unit(self.model.visual_projection(pooled))

    @torch.inference_mode()
    def read(self, ids: Ids) -> NDArray[np.float64]:
        """Projected features of length 1 of token ids ``[n, length]``: ``[n, d]``."""
        pooled = self.model.text_model(torch.from_numpy(ids).to(self.device)).pooler_output
        return unit(self.model.text_projection(pooled))


def _load_model(config: Path, weights: Path, device: str, dtype: torch.dtype) -> CLIPModel:
    """The model on ``device``, from exactly the two files whose hashes the signature holds."""
    given = read_config(config)
    if weights.suffix == ".safetensors":
        tensors = read_tensors(weights)
    else:
        tensors = read_converted(weights, clip_from_open_clip, CONVERSION)
    for part in ("text", "vision"):
        own = {n: tuple(t.shape) for n, t in tensors.items() if n.startswith(f"{part}_model.")}
        expect_sizes(config, given.get(f"{part}_config") or {}, own)
    with refusing(config, f"the config of a CLIP model with the tensors of {weights}"):
        model, told = CLIPModel.from_pretrained(
            None,
            config=CLIPConfig.from_dict(given),
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    refuse_unloaded(told, weights, config)
    refuse_overflow(model, weights, dtype)
    loaded: CLIPModel = model.to(device).eval().requires_grad_(False)
    return loaded


def unit(features: Tensor) -> NDArray[np.float64]:
    """Rows scaled to length 1. In float64 on the CPU, so that only the model can round."""
    rows: NDArray[np.float64] = nn.functional.normalize(features.cpu().double(), dim=-1).numpy()
    return rows


class Head(nn.Module):
    """Linear layers ``width``-1024-128-64-16-1 without activations, laid out as published.

    The dropouts act in training only; they also give the layers their published names.
    """

    def __init__(self, width: int) -> None:
        """Create a head for features ``[n, width]``, randomly initialised."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Ratings ``[n]`` of image features of length 1, ``[n, width]``."""
        ratings: Tensor = self.layers(features).squeeze(-1)
        return ratings

    @torch.inference_mode()
    def rate(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """The same in the head's precision and on its device."""
        weight = next(self.parameters())
        ratings: NDArray[np.float32] = self(torch.from_numpy(features).to(weight)).cpu().numpy()
        return ratings


def load_head(path: Path, device: str) -> Head:
    """Read a head from safetensors, or from a ``.pth`` file without running any code in it.

    Raises:
        UserError: If the file holds something else.
    """
    tensors = read_weights(path, "an aesthetic head")
    first = tensors.get("layers.0.weight")
    if first is None or first.dim() != 2:
        raise UserError(
            f"{path}: expected the tensors layers.{{0,2,4,6,7}}.{{weight,bias}} of an aesthetic "
            "head, got others: fetch the file again"
        )
    with torch.device("meta"):
        head = Head(first.shape[1])
    fit(
        tensors,
        {n: tuple(t.shape) for n, t in head.state_dict().items()},
        path,
        "an aesthetic head",
    )
    head.load_state_dict(tensors, assign=True)
    return head.float().to(device).eval().requires_grad_(False)
