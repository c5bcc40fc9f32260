"""Pixels as every tower sees them, computed with PIL and NumPy alone.

The processors of the installed libraries choose their own backend, and with it other values; a
score must not depend on what else is installed.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainers.errors import UserError

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of R, G and B in [0, 1] over CLIP's training images."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of R, G and B over CLIP's training images."""
PREPROCESSING = (
    "PIL: EXIF orientation, RGB (alpha dropped), shortest side bicubic with antialiasing to the "
    "tower's image_size, centre crop rounded to the upper left, /255, CLIP mean and deviation"
)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it, in RGB.

    An EXIF orientation is applied, as viewers do. Alpha is dropped without blending, as
    the published processors do. Grey and palette images are converted.

    Raises:
        UserError: If the pixels are wider than 8 bits, which PIL would clip instead of scaling.
    """
    if image.mode.startswith(("I", "F")):
        raise UserError(
            f"expected an image with 8 bits a channel, got mode {image.mode!r}: "
            "scale it to 8 bits and save it again"
        )
    return ImageOps.exif_transpose(image).convert("RGB")


def to_pixels(image: Image.Image, side: int) -> NDArray[np.float32]:
    """Prepare an image of any size for a CLIP vision tower: ``float32[3, side, side]``.

    Where the crop leaves an odd margin the spare pixel goes to the lower right, as in Hugging
    Face's CLIPImageProcessor; torchvision would put it elsewhere.
    """
    image = to_rgb(image)
    short = min(image.size)
    width, height = (int(side * length / short) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    values: NDArray[np.float32] = np.asarray(image, dtype=np.float32) / np.float32(255)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    values = ((values - mean) / std).astype(np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
