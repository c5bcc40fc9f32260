"""Pixels as every model sees them, computed explicitly.

The processors of the installed libraries choose their own backend, and with it other values; a
score must not depend on what else is installed. Published implementations differ in three ways,
so there are three preprocessings.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from bench.rewards.kit.shared import Shared
from trainers.errors import UserError
from trainers.input.image import PIXELS, upright

Pixels = NDArray[np.float32]

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of R, G and B in [0, 1] over CLIP's training images."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of R, G and B over CLIP's training images."""


@dataclass(frozen=True)
class Preprocessing:
    """A way from an image to pixels ``float32[3, side, side]``."""

    text: str
    """What it does, for cards."""
    run: Callable[[Image.Image, int], Pixels]
    """Called with an upright image of 8 bits a channel and the side in pixels."""


def preprocess(
    images: Sequence[Image.Image], preprocessing: Preprocessing, side: int, shared: Shared
) -> list[Pixels]:
    """Pixels of each image, computed once per distinct image.

    An EXIF orientation is applied first, as viewers do.

    Raises:
        UserError: If an image's values have no known range, or it is too narrow to be resized.
    """

    def compute(positions: list[int]) -> list[Pixels]:
        return [preprocessing.run(upright(images[i]), side) for i in positions]

    digests = {id(image): "" for image in images}
    for image in images:
        digests[id(image)] = digests[id(image)] or image_digest(image)
    keys = [(digests[id(image)], preprocessing.text, side) for image in images]
    return shared.values(keys, compute)


def image_digest(image: Image.Image) -> str:
    """sha256 of what an image shows: its pixels, mode, size, palette and orientation."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    shape = f"{image.mode} {image.size} {orientation} {image.getpalette()}"
    return hashlib.sha256(shape.encode() + image.tobytes()).hexdigest()


def _normalise(values: NDArray[np.float32]) -> Pixels:
    """``[side, side, 3]`` in [0, 1] to ``[3, side, side]`` by CLIP's mean and deviation."""
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    return np.ascontiguousarray(((values - mean) / std).astype(np.float32).transpose(2, 0, 1))


def _scaled(image: Image.Image) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.asarray(image, dtype=np.float32) / np.float32(255)
    return values


def _shortest_side(image: Image.Image, side: int) -> Image.Image:
    short = min(image.size)
    width, height = (int(side * length / short) for length in image.size)
    if width * height > PIXELS:
        raise _too_narrow(image, f"at most {PIXELS} pixels when its shorter side is {side}")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _too_narrow(image: Image.Image, expected: str) -> UserError:
    return UserError(f"expected an image of {expected}, got {image.width} x {image.height} pixels")


def _crop(image: Image.Image, side: int, left: int, top: int) -> Image.Image:
    return image.crop((left, top, left + side, top + side))


def _rgb_first(image: Image.Image, side: int) -> Pixels:
    image = _shortest_side(image.convert("RGB"), side)
    image = _crop(image, side, (image.width - side) // 2, (image.height - side) // 2)
    return _normalise(_scaled(image))


def _resize_first(image: Image.Image, side: int) -> Pixels:
    image = _shortest_side(image, side)
    image = _crop(image, side, round((image.width - side) / 2), round((image.height - side) / 2))
    return _normalise(_scaled(image.convert("RGB")))


def _longest_side(image: Image.Image, side: int) -> Pixels:
    from torch import from_numpy
    from torch.nn.functional import interpolate

    values = _scaled(image.convert("RGB"))
    height, width, _ = values.shape
    scale = side / max(height, width)
    size = (round(height * scale), round(width * scale))
    if min(size) == 0:
        raise _too_narrow(image, f"a pixel or more in width when its longer side is {side}")
    if scale != 1:
        resized = interpolate(
            from_numpy(values).permute(2, 0, 1)[None], size, mode="bicubic", antialias=True
        )
        values = resized[0].permute(1, 2, 0).numpy()
    padded = np.zeros((side, side, 3), np.float32)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    padded[top : top + size[0], left : left + size[1]] = values
    return _normalise(padded)


_CLIP = "shortest side bicubic with antialiasing to the model's side"
RGB_FIRST = Preprocessing(
    f"PIL: upright, RGB (alpha dropped), {_CLIP}, centre crop rounded to the upper left, /255, "
    "CLIP mean and deviation",
    _rgb_first,
)
"""As CLIP processors of transformers do before its version 5."""
RESIZE_FIRST = Preprocessing(
    f"PIL: upright, {_CLIP} in the image's own mode, centre crop rounded half to even, RGB (alpha "
    "dropped), /255, CLIP mean and deviation",
    _resize_first,
)
"""As OpenAI's CLIP, open_clip and ImageReward do. PIL resizes palette images by nearest neighbour
and weighs colours by alpha, so their order matters for such images."""
LONGEST_SIDE = Preprocessing(
    "upright, RGB (alpha dropped), /255, longest side bicubic with antialiasing in float32 without "
    "clipping to the model's side, padded with 0, CLIP mean and deviation",
    _longest_side,
)
"""As the hpsv2 package does with torchvision 0.17 or later; before, it did not antialias."""
