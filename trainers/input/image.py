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
EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr",
              "LAB", "HSV")  # fmt: skip


class BadImage(UserError):
    """Bytes are no whole image that can be taken for what it shows."""


def open_image(data: bytes) -> Image.Image:
    """An encoded image, decoded and upright, with 8 bits a channel.

    Grey of 16 bits is scaled, 65535 to 255, and rounded; Pillow takes the higher byte of colours of
    16 bits. Palettes and alpha are left as they are. Of several frames it is the first one.

    Raises:
        BadImage: If it is damaged, of another format than ``FORMATS``, too large, or its values
            have no known range: 32 bits, or floats.
    """
    with _decoded(data) as image:
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        found = image if orientation in (None, 1) else ImageOps.exif_transpose(image)
        return _eight_bits(found)


def open_rgb(data: bytes) -> Image.Image:
    """As :func:`open_image`, in RGB: alpha dropped without blending, grey and palettes converted.

    Raises:
        BadImage: As :func:`open_image`.
    """
    image = open_image(data)
    try:
        return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise BadImage(f"expected an image, got {_line(error)}") from error


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image as it is to be seen; only its header is read.

    Raises:
        BadImage: If it is no image, or too large.
    """
    with _decoded(data) as image:
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


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in EIGHT_BITS:
        return image
    # An older Pillow reads PNG's 16 bits into 32.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8), "L")
    raise BadImage(
        f"expected an image with 8 or 16 bits a channel, got mode {image.mode!r}, whose range is "
        "not known: scale it to 8 bits and save it again"
    )


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).split(" <_io")[0]
