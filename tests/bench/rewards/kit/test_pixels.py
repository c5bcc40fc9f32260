"""Preprocessing against an independent computation, for sizes, shapes and modes."""

import numpy as np
import pytest
from PIL import Image

from bench.rewards.kit.pixels import LONGEST_SIDE, RESIZE_FIRST, RGB_FIRST
from trainers.errors import UserError
from trainers.input.image import to_rgb


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2, which PIL calls bicubic."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resample(values: np.ndarray, size: int) -> np.ndarray:
    """Resize the first axis with antialiasing, and round to 8 bits."""
    scale = len(values) / size
    centres = (np.arange(size) + 0.5) * scale
    taps = np.arange(len(values)) + 0.5
    weights = cubic((taps[None] - centres[:, None]) / max(scale, 1.0))
    weights /= weights.sum(1, keepdims=True)
    mixed = np.tensordot(weights, values.astype(np.float64), axes=1)
    return np.clip(np.rint(mixed), 0, 255)


def expected(image: Image.Image, side: int, rows_first: bool = False) -> np.ndarray:
    """The published CLIP preprocessing in NumPy: ``[3, side, side]``."""
    values = np.asarray(image, dtype=np.float64)
    height, width = values.shape[:2]
    short = min(height, width)
    sizes = [side * height // short, side * width // short]
    for axis in (0, 1) if rows_first else (1, 0):
        values = resample(values.swapaxes(0, axis), sizes[axis]).swapaxes(0, axis)
    top, left = (values.shape[0] - side) // 2, (values.shape[1] - side) // 2
    values = values[top : top + side, left : left + side] / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    return ((values - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [(64, 64, 64), (64, 64, 32), (40, 40, 56), (100, 60, 32), (61, 97, 32), (37, 80, 24)],
)
def test_pixels_are_those_of_the_published_preprocessing(width, height, side):
    image = picture(width, height)
    pixels = RGB_FIRST.run(image, side)
    assert pixels.dtype == np.float32
    assert pixels.shape == (3, side, side)
    # PIL computes with fixed-point weights, so a value may round to the next of the 256 levels.
    level = 1 / 255 / 0.26
    # It rounds between rows and columns, and takes first whichever costs less.
    orders = [np.abs(pixels - expected(image, side, rows_first)) for rows_first in (False, True)]
    difference = min(orders, key=np.max)
    assert difference.max() < 1.05 * level
    assert difference.mean() < 0.02 * level


def test_an_image_of_the_right_size_is_only_normalised():
    image = picture(32, 32)
    for preprocessing in (RGB_FIRST, RESIZE_FIRST, LONGEST_SIDE):
        pixels = preprocessing.run(image, 32)
        np.testing.assert_allclose(pixels, expected(image, 32), atol=1e-6)


def test_crops_of_an_odd_margin_differ_by_the_published_pixel():
    image = picture(35, 32)
    floor, half_even = RGB_FIRST.run(image, 32), RESIZE_FIRST.run(image, 32)
    np.testing.assert_array_equal(floor[:, :, 1:], half_even[:, :, :-1])


@pytest.mark.parametrize(
    ("width", "apart"), [(224, 0), (225, 0), (226, 0), (227, 1), (229, 0), (231, 1)]
)
def test_where_the_crops_of_clip_and_of_transformers_part(width, apart):
    """Half a pixel goes to the even side in the one, to the left in the other."""
    image = picture(width, 224)
    left = (width - 224) // 2
    for way, at in ((RGB_FIRST, left), (RESIZE_FIRST, left + apart)):
        crop = image.crop((at, 0, at + 224, 224))
        np.testing.assert_array_equal(way.run(image, 224), way.run(crop, 224))


def test_palettes_are_resized_before_or_after_they_are_looked_up():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.paste(1, (0, 0, 2, 4))
    smooth, blocky = RGB_FIRST.run(image, 8), RESIZE_FIRST.run(image, 8)
    assert len(np.unique(blocky[0])) == 2 < len(np.unique(smooth[0]))


def test_the_longest_side_fits_and_the_rest_is_padded_with_black():
    image = Image.new("RGB", (60, 30), (255, 255, 255))
    pixels = LONGEST_SIDE.run(image, 20)
    white = pixels[0] > 0
    assert white[5:15].all()
    assert not white[:5].any()
    assert not white[15:].any()


def test_longest_side_neither_clips_nor_aliases():
    values = np.zeros((64, 64, 3), np.uint8)
    values[:, 32:] = 255
    levels = LONGEST_SIDE.run(Image.fromarray(values), 16)[0] * 0.26862954 + 0.48145466
    rows = resample_float(values[0, :, 0] / 255, 16)
    np.testing.assert_allclose(levels, np.tile(rows, (16, 1)), atol=1e-5)
    assert levels.min() < 0
    assert levels.max() > 1


def resample_float(values: np.ndarray, size: int) -> np.ndarray:
    """As ``resample``, without rounding: cubic with antialiasing."""
    scale = len(values) / size
    centres, taps = (np.arange(size) + 0.5) * scale, np.arange(len(values)) + 0.5
    weights = cubic((taps[None] - centres[:, None]) / scale)
    return weights @ values / weights.sum(1)


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 0), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_modes_become_rgb(mode, colour, rgb):
    assert to_rgb(Image.new(mode, (4, 4), colour)).getpixel((1, 1)) == rgb


def test_a_palette_is_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(9, 8, 7), (200, 100, 50)]


def test_an_exif_orientation_is_applied():
    image = picture(8, 4)
    image.getexif()[0x0112] = 6
    turned = np.asarray(to_rgb(image))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_no_known_range_are_refused(mode):
    with pytest.raises(UserError, match="8 or 16 bits a channel"):
        to_rgb(Image.new(mode, (4, 4)))
