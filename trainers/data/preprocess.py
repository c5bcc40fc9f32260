"""From the bytes of an image to pixels: upright, RGB, resized, cropped, flipped."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainers.data.settings import DataSettings
from trainers.input.image import PIXELS, BadImage, open_rgb
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

    Raises:
        BadImage: If it is so narrow that too many pixels would come of that.
    """
    side = settings.resolution
    if side is None:
        return Geometry(size, size, 0, 0, size, augmentation.flip)
    shorter = min(size)
    height, width = (side * length // shorter for length in size)
    if height * width > PIXELS:
        raise BadImage(
            f"expected an image of at most {PIXELS} pixels when its shorter side is {side}, got "
            f"one of {size[1]} x {size[0]} pixels (width x height)"
        )
    if settings.crop == "centre":
        top, left = round((height - side) / 2), round((width - side) / 2)
    else:
        top = int(augmentation.down * (height - side + 1))
        left = int(augmentation.right * (width - side + 1))
    return Geometry(size, (height, width), top, left, (side, side), augmentation.flip)


def preprocess(data: bytes, how: Geometry, settings: DataSettings) -> Pixels:
    """Decode an image, resize, crop and flip it: ``uint8[height, width, 3]``.

    Raises:
        BadImage: If it is damaged, or not of the size that ``how`` is for.
    """
    image = open_rgb(data)
    if (image.height, image.width) != how.size:
        raise BadImage(
            f"expected an image of {how.size[1]} x {how.size[0]} pixels as its header says, got "
            f"{image.width} x {image.height}"
        )
    height, width = how.resized
    if how.size != how.resized:
        image = image.resize((width, height), FILTERS[settings.resize])
    if how.target != how.resized:
        bottom, right = how.top + how.target[0], how.left + how.target[1]
        image = image.crop((how.left, how.top, right, bottom))
    return np.asarray(ImageOps.mirror(image) if how.flip else image)
