"""What makes encodings: the frozen encoders of a backbone, under the data settings of a run."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from trainers.backbones import Backbone
from trainers.data.preprocess import Geometry, Pixels, draw_augmentation, geometry
from trainers.data.settings import DataSettings
from trainers.errors import UserError
from trainers.files import canonical_json
from trainers.input.image import image_size
from trainers.input.tensors import not_finite
from trainers.machine.execution import set_matmul
from trainers.machine.precision import torch_dtype


class Encoder:
    """The frozen encoders of a backbone under settings; ``identity`` stands for their weights."""

    def __init__(self, backbone: Backbone, settings: DataSettings, identity: str) -> None:
        """``identity`` is a hash of the weights, or of all of the base model."""
        self.backbone = backbone
        self.settings = settings
        self.identity = f"{backbone.name} {identity}"
        self._dtype = torch_dtype(settings.precision)

    def encode_images(self, arrays: Sequence[Pixels]) -> dict[str, Tensor]:
        """``mean`` and ``std`` of images of one size, in the precision of the settings."""
        set_matmul("float32")  # Encodings are kept for all runs, whatever these multiply in.
        stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        mean, std = self.backbone.encode_images(stacked.float() / 127.5 - 1)
        return self._rounded({"mean": mean, "std": std}, "the autoencoder", "an image")

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encodings of prompts, made and given in the precision of the settings."""
        set_matmul("float32")
        condition = self.backbone.encode_prompts(prompts, self.settings.precision)
        return self._rounded(condition, "a text encoder", "a prompt")

    def _rounded(self, values: Mapping[str, Tensor], part: str, what: str) -> dict[str, Tensor]:
        """Encodings in the precision of the settings.

        Raises:
            UserError: If they are not finite, of which no loss would be.
        """
        rounded = {name: tensor.to(self._dtype).cpu() for name, tensor in values.items()}
        if not_finite(rounded.items()):
            precision = self.settings.precision
            half = (
                ""
                if precision == "float32"
                else (f", or data.precision {precision} cannot hold them: set it to float32")
            )
            raise UserError(
                f"expected finite encodings, but {part} of the base model gave NaN or infinities "
                f"for {what}: its weights are damaged or overflow, take another base model{half}"
            )
        return rounded

    def geometry(self, data: bytes, row: int, side: int) -> Geometry:
        """How image ``side`` (0 or 1) of a row is preprocessed; only its header is read.

        Raises:
            BadImage: If it is no image.
        """
        augmentation = draw_augmentation(self.settings, row, side)
        return geometry(image_size(data), self.settings, augmentation)

    def image_key(self, data: bytes, how: Geometry) -> bytes:
        """32 bytes that stand for one encoding of an image: equal keys, equal encodings."""
        image = hashlib.sha256(data).hexdigest()
        # An image that is not resized does not depend on the filter.
        resize = self.settings.resize if how.resized != how.size else None
        return self._key(
            "image", image, resize, [how.resized, how.top, how.left, how.target, how.flip]
        )

    def prompt_key(self, prompt: str) -> bytes:
        """32 bytes that stand for one encoding of a prompt."""
        return self._key("prompt", prompt)

    def _key(self, *parts: object) -> bytes:
        every = [self.identity, self.settings.precision, *parts]
        return hashlib.sha256(canonical_json(every).encode()).digest()
