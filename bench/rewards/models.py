"""What the weights of a reward are loaded into: a CLIP model, and a head on its features.

The only module of this package that imports torch.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from bench.rewards.images import to_pixels
from bench.rewards.towers import MODEL_FILES, TOKENIZER_FILE
from trainers.errors import UserError

END = "<|endoftext|>"
"""CLIP's end token. Padding with it is harmless: attention is causal and the first one is read."""


class Tower:
    """A CLIP model in float32, with its tokenizer if there is one."""

    def __init__(self, files: Mapping[str, Path], device: str) -> None:
        """Load ``config.json``, ``model.safetensors`` and, if present, ``tokenizer.json``.

        Raises:
            UserError: If the weights lack a tensor of the model that the config describes.
        """
        self.device = device
        self.model = _load_model(files, device)
        self.side: int = self.model.config.vision_config.image_size
        self.scale = float(self.model.logit_scale.exp())
        self._texts: dict[str, Tensor] = {}
        self._tokenizer: Tokenizer | None = None
        if TOKENIZER_FILE in files:
            self._tokenizer = Tokenizer.from_file(str(files[TOKENIZER_FILE]))
            length: int = self.model.config.text_config.max_position_embeddings
            pad = self._tokenizer.token_to_id(END)
            self._tokenizer.enable_truncation(length)
            self._tokenizer.enable_padding(length=length, pad_id=pad, pad_token=END)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Projected image features of length 1: ``float64[n, d]`` on the CPU."""
        pixels = torch.from_numpy(np.stack([to_pixels(image, self.side) for image in images]))
        pooled = self.model.vision_model(pixels.to(self.device)).pooler_output
        return _unit(self.model.visual_projection(pooled))

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Projected text features of length 1: ``float64[n, d]`` on the CPU. Kept per prompt."""
        new = list(dict.fromkeys(p for p in prompts if p not in self._texts))
        if new:
            if self._tokenizer is None:
                raise RuntimeError("this tower was loaded without a tokenizer")
            ids = torch.tensor([e.ids for e in self._tokenizer.encode_batch(new)])
            pooled = self.model.text_model(ids.to(self.device)).pooler_output
            features = _unit(self.model.text_projection(pooled))
            self._texts |= dict(zip(new, features, strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def cosines(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Cosine of image ``i`` and prompt ``i``: ``float64[n]``."""
        values: NDArray[np.float64] = (self.images(images) * self.texts(prompts)).sum(-1).numpy()
        return values


def _load_model(files: Mapping[str, Path], device: str) -> CLIPModel:
    """The model on ``device``, from exactly the two files whose hashes the signature holds."""
    config, weights = (files[name] for name in MODEL_FILES)
    try:
        described = CLIPConfig.from_dict(json.loads(config.read_text()))
        tensors = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise UserError(
            f"expected the JSON config of a CLIP model in {config} and its tensors in {weights}, "
            f"got {error}: fetch both files again"
        ) from error
    model, info = CLIPModel.from_pretrained(
        None,
        config=described,
        state_dict=tensors,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise UserError(
            f"{weights}: expected every tensor of the CLIP model that {config} describes, missing "
            f"or of another shape are {len(wrong)}, such as {wrong[0]!r}: take both files from "
            "the same repository"
        )
    loaded: CLIPModel = model.to(device).eval().requires_grad_(False)
    return loaded


def _unit(features: Tensor) -> Tensor:
    """Rows scaled to length 1. In float64 on the CPU, so that only the tower can round."""
    return torch.nn.functional.normalize(features.cpu().double(), dim=-1)


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
    def rate(self, features: Tensor) -> NDArray[np.float32]:
        """The same in the head's precision and on its device, from any other."""
        weight = next(self.parameters())
        ratings: NDArray[np.float32] = self(features.to(weight)).cpu().numpy()
        return ratings


def load_head(path: Path, device: str) -> Head:
    """Read a head from safetensors, or from a ``.pth`` file without running any code in it.

    Raises:
        UserError: If the file holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        with torch.device("meta"):
            head = Head(tensors["layers.0.weight"].shape[1])
        head.load_state_dict(tensors, assign=True)
    except Exception as error:
        raise UserError(
            f"{path}: expected the tensors layers.{{0,2,4,6,7}}.{{weight,bias}} of an aesthetic "
            f"head, got another content ({type(error).__name__}): fetch the file again"
        ) from error
    return head.float().to(device).eval().requires_grad_(False)
