"""Encoded images: one way to open them, for training, judging and checking alike."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainers.errors import UserError
from trainers.input.paths import POINTER

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What Pillow may take bytes for. Some of its other decoders start programs, as that of EPS."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Ends of the names of such files."""
PIXELS = 2 * (1024**3 // 12)
"""Most pixels of an image, that of Pillow's own bound: it takes 0.5 GB as RGB."""
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB")
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF, and the value of the second where the highest grey is black."""


class BadImage(UserError):
    """Bytes are no whole image that can be taken for what it shows."""


def open_image(data: bytes) -> Image.Image:
    """An encoded image, decoded and upright, with 8 bits a channel.

    Grey of 16 bits (12 in a TIFF) is scaled, its highest value to 255, and rounded; Pillow takes
    the higher byte of colours of 16 bits. Palettes and alpha are left as they are. Of several
    frames it is the first one.

    Raises:
        BadImage: If it is damaged, of another format than ``FORMATS``, too large, or its values
            have no known range: 32 bits, or floats.
    """
    with _decoded(data) as image:
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """What :func:`open_image` makes of an image that Pillow has opened.

    Raises:
        BadImage: If its values have no known range: 32 bits, or floats.
    """
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    found = image if orientation in (None, 1) else ImageOps.exif_transpose(image)
    if image.mode in EIGHT_BITS:
        return found
    # An older Pillow reads PNG's 16 bits into 32.
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")):
        raise BadImage(
            f"expected an image with 8 or 16 bits a channel, got mode {image.mode!r}, whose range "
            "is not known: scale it to 8 bits and save it again"
        )
    tags = getattr(image, "tag_v2", {})
    highest = 2 ** int(tags.get(BITS_PER_SAMPLE, (16,))[0]) - 1
    wide = np.asarray(found).astype(np.uint32)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow minds it where there are 8 bits only.
        wide = highest - wide
    return Image.fromarray(((wide * 255 + highest // 2) // highest).astype(np.uint8), "L")


def to_rgb(image: Image.Image) -> Image.Image:
    """As :func:`upright`, in RGB: alpha dropped without blending, grey and palettes converted.

    Raises:
        BadImage: As :func:`upright`, or if Pillow knows no way from its mode to RGB.
    """
    try:
        return upright(image).convert("RGB")
    except (OSError, ValueError) as error:
        raise BadImage(f"expected an image, got {_line(error)}") from error


def open_rgb(data: bytes) -> Image.Image:
    """An encoded image, decoded as by :func:`open_image`, and :func:`to_rgb`.

    Raises:
        BadImage: As :func:`open_image`.
    """
    with _decoded(data) as image:
        image.load()
        return to_rgb(image)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image as it is to be seen; of most, only the header is read.

    Raises:
        BadImage: If it is no image, or too large.
    """
    with _decoded(data) as image:
        if image.format == "TIFF":  # Its size is that before or after, by Pillow's version.
            image.load()
        sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
        return image.size if sideways else (image.height, image.width)


@contextmanager
def _decoded(data: bytes) -> Iterator[Image.Image]:
    if not data:
        raise BadImage("expected an image, got no bytes")
    if data.startswith(POINTER):
        raise BadImage("expected an image, got a pointer of Git LFS: run 'git lfs pull'")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > PIXELS:
                raise BadImage(
                    f"expected at most {PIXELS} pixels, got {image.width} x {image.height}"
                )
            yield image
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(f"expected an image of {', '.join(FORMATS)}, got other bytes") from error
    except Exception as error:  # A decoder of foreign bytes may raise anything.
        raise BadImage(f"expected an image, got {_line(error)}") from error


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).split(" <_io")[0]
