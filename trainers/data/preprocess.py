"""From the bytes of an image to pixels: upright, RGB, resized, cropped, flipped."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainers.data.settings import DataSettings
from trainers.data.sources import BadPair
from trainers.seeds import derive

Pixels = NDArray[np.uint8]
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Micro = tuple[int, int, int, int, int, int]
"""Height and width before resizing, top and left of the crop, height and width after it."""


@dataclass(frozen=True)
class Augmentation:
    """The random part of one image's preprocessing."""

    down: float
    right: float
    """Where the crop lies in the room there is, each in [0, 1)."""
    flip: bool


def draw_augmentation(settings: DataSettings, row: int, side: int) -> Augmentation:
    """That of image ``side`` (0 or 1) of a row; only flips may differ between the two."""
    axes = (row, side) if settings.independent_flip else (row,)
    return Augmentation(
        _uniform(settings.seed, "crop down", row),
        _uniform(settings.seed, "crop right", row),
        _uniform(settings.seed, "flip", *axes) < settings.flip,
    )


def _uniform(seed: int, *axes: str | int) -> float:
    return (derive(seed, *axes) >> 10) / 2.0**53


@dataclass(frozen=True)
class Geometry:
    """How one image is resized, cropped and flipped: fixed before a pixel of it is changed."""

    size: tuple[int, int]
    """Height and width before, upright."""
    resized: tuple[int, int]
    """Height and width after resizing."""
    top: int
    left: int
    target: tuple[int, int]
    """Height and width of the crop."""
    flip: bool

    @property
    def micro(self) -> Micro:
        """See :data:`Micro`."""
        return *self.size, self.top, self.left, *self.target


def geometry(size: tuple[int, int], settings: DataSettings, augmentation: Augmentation) -> Geometry:
    """The geometry of an image of a height and width.

    The shorter side is brought to the resolution, the longer in proportion (cut to whole pixels);
    the crop is a square of it.
    """
    side = settings.resolution
    if side is None:
        return Geometry(size, size, 0, 0, size, augmentation.flip)
    shorter = min(size)
    height, width = (side * length // shorter for length in size)
    if settings.crop == "centre":
        top, left = round((height - side) / 2), round((width - side) / 2)
    else:
        top = int(augmentation.down * (height - side + 1))
        left = int(augmentation.right * (width - side + 1))
    return Geometry(size, (height, width), top, left, (side, side), augmentation.flip)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image as it is to be seen; only its header is read.

    Raises:
        BadPair: If it is no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            sideways = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
            return image.size if sideways else (image.height, image.width)
    except ERRORS as error:
        raise BadPair(f"no image: {_line(error)}") from error


def preprocess(data: bytes, how: Geometry, settings: DataSettings) -> Pixels:
    """Decode an image, resize, crop and flip it: ``uint8[height, width, 3]``.

    Raises:
        BadPair: If it is damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except ERRORS as error:
        raise BadPair(f"damaged image: {_line(error)}") from error
    height, width = how.resized
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), FILTERS[settings.resize])
    if how.target != how.resized:
        bottom, right = how.top + how.target[0], how.left + how.target[1]
        image = image.crop((how.left, how.top, right, bottom))
    return np.asarray(ImageOps.mirror(image) if how.flip else image)


ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
SIDEWAYS = (5, 6, 7, 8)
"""Orientations that exchange height and width."""
ERRORS = (
    OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for bytes that are no whole image."""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).split(" <_io")[0]
