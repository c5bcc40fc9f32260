"""Images before they are encoded: upright, RGB, resized, cropped, flipped, and what is recorded."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainers.data.encoder import Encoder
from trainers.data.preprocess import Augmentation, geometry, preprocess
from trainers.data.preprocess import (
    draw_augmentation as draw,
)
from trainers.data.settings import DataSettings
from trainers.input.image import BadImage, image_size

PLAIN = Augmentation(0.0, 0.0, False)
BACKBONE: Any = SimpleNamespace(name="a backbone")
"""All that a key needs of it."""


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).convert(mode)


def preprocessed(data: bytes, draws: Augmentation = PLAIN, **settings: Any) -> np.ndarray:
    chosen = DataSettings(**settings)
    return preprocess(data, geometry(image_size(data), chosen, draws), chosen)


@pytest.mark.parametrize("settings", [{}, {"resolution": 64}, {"resolution": 64, "crop": "random"}])
def test_an_image_that_fits_passes_through(settings: dict[str, Any]) -> None:
    """To the bit, whatever the filter."""
    image = noise(64, 64)
    data = encoded(image)
    draws = Augmentation(0.9, 0.9, False)
    for resize in ("bilinear", "bicubic", "lanczos"):
        got = preprocessed(data, draws, resize=resize, **settings)
        np.testing.assert_array_equal(got, np.asarray(image))


def test_the_shorter_side_is_resized_and_the_middle_kept() -> None:
    """96 x 64 to resolution 32: 48 x 32 by Pillow's own filter, then columns 8 to 40."""
    image = noise(96, 64)
    for name, kind in (("bilinear", 2), ("bicubic", 3), ("lanczos", 1)):
        expected = np.asarray(image.resize((48, 32), Image.Resampling(kind)))[:, 8:40]
        np.testing.assert_array_equal(
            preprocessed(encoded(image), resolution=32, resize=name), expected
        )


def test_odd_sizes() -> None:
    """A longer side that is no whole number of pixels is cut: 32 * 101 / 50 = 64.64."""
    laid = geometry((50, 101), DataSettings(resolution=32), PLAIN)
    assert (laid.resized, laid.top, laid.left, laid.target) == ((32, 64), 0, 16, (32, 32))
    assert geometry((7, 7), DataSettings(resolution=32), PLAIN).resized == (32, 32)
    assert preprocessed(encoded(noise(3, 77)), resolution=16).shape == (16, 16, 3)


def test_random_crops_stay_inside_and_reach_both_ends() -> None:
    settings = DataSettings(resolution=32, crop="random")
    tops = {geometry((40, 32), settings, Augmentation(u / 100, 0.5, False)).top for u in range(100)}
    assert tops == set(range(9))
    almost = geometry((40, 32), settings, Augmentation(1 - 2**-53, 1 - 2**-53, False))
    assert (almost.top, almost.left) == (8, 0)


def test_what_is_recorded() -> None:
    """Height and width before, top and left of the crop, height and width after."""
    assert geometry((64, 96), DataSettings(resolution=32), PLAIN).micro == (64, 96, 0, 8, 32, 32)
    assert geometry((64, 96), DataSettings(), PLAIN).micro == (64, 96, 0, 0, 64, 96)


def test_flips_mirror() -> None:
    image = noise(16, 8)
    got = preprocessed(encoded(image), Augmentation(0, 0, True))
    np.testing.assert_array_equal(got, np.asarray(image)[:, ::-1])


def test_every_mode_becomes_rgb() -> None:
    """Grey, CMYK, palette, with transparency, one bit, 16 bits."""
    for mode, kind in (
        ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("1", "PNG"),
        ("LA", "PNG"), ("I;16", "PNG"), ("RGB", "WEBP"),
    ):  # fmt: skip
        image = noise(16, 8, "L").convert(mode) if mode == "I;16" else noise(16, 8, mode)
        got = preprocessed(encoded(image, kind))
        assert (got.shape, got.dtype) == ((8, 16, 3), np.uint8), mode
    grey = preprocessed(encoded(noise(16, 8, "L")))
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    """A camera held sideways: what counts is the picture as it is seen, sizes included."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(16, 8), exif=exif.tobytes())
    array = np.asarray(noise(16, 8))
    turned = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1],
        5: array.swapaxes(0, 1), 6: np.rot90(array, -1), 7: np.rot90(array, 2).swapaxes(0, 1),
        8: np.rot90(array),
    }[orientation]  # fmt: skip
    assert image_size(data) == turned.shape[:2]
    np.testing.assert_array_equal(preprocessed(data), turned)


def test_damaged_images_are_bad() -> None:
    whole = encoded(noise(64, 64), "JPEG")
    for data in (b"", b"no image", whole[: len(whole) // 2], encoded(noise(64, 64))[:900]):
        with pytest.raises(BadImage, match="image"):
            preprocessed(data)


def test_grey_of_16_bits_is_trained_on_as_it_looks() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    wide = preprocessed(encoded(Image.fromarray(grey.astype(np.uint16) * 257)))
    np.testing.assert_array_equal(wide, preprocessed(encoded(Image.fromarray(grey))))
    with pytest.raises(BadImage, match="got mode 'F'"):
        preprocessed(encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"))


def test_an_image_that_would_grow_too_large_is_bad() -> None:
    with pytest.raises(BadImage, match="when its shorter side is 64, got one of 1 x 100000"):
        preprocessed(encoded(Image.new("L", (1, 100_000))), resolution=64)


def test_draws_belong_to_a_row_and_a_seed() -> None:
    """The same for both images of a pair; flips may be drawn apart; crops never."""
    shared = DataSettings(flip=0.5, resolution=64, crop="random")
    apart = shared.model_copy(update={"independent_flip": True})
    assert all(draw(shared, row, 0) == draw(shared, row, 1) for row in range(50))
    drawn = [[draw(apart, row, side) for row in range(400)] for side in (0, 1)]
    assert [d.down for d in drawn[0]] == [d.down for d in drawn[1]]
    both = np.array([[d.flip for d in side] for side in drawn])
    # 400 fair coins: within 5 deviations of a half; and a quarter are heads twice.
    assert (abs(both.mean(1) - 0.5) < 5 * 0.5 / 20).all()
    assert abs((both[0] & both[1]).mean() - 0.25) < 5 * 0.433 / 20
    other = DataSettings(flip=0.5, resolution=64, crop="random", seed=1)
    assert draw(other, 0, 0) != draw(shared, 0, 0)
    assert not any(draw(DataSettings(), row, 0).flip for row in range(50))
    assert all(draw(DataSettings(flip=1.0), row, 0).flip for row in range(50))


def test_a_key_stands_for_an_encoding() -> None:
    """Whatever changes the pixels or the encoder changes it, and nothing else does."""
    data, other = encoded(noise(64, 96)), encoded(noise(96, 64))
    base: dict[str, Any] = {"resolution": 32}

    def key(data: bytes, draws: Augmentation = PLAIN, encoder: str = "e", **more: Any) -> bytes:
        settings = DataSettings(**(base | more))
        how = geometry(image_size(data), settings, draws)
        return Encoder(BACKBONE, settings, encoder).image_key(data, how)

    same = [
        {}, {"ties": "soft"}, {"swap_labels": True}, {"micro": "hard-coded"}, {"seed": 3},
        {"subset": 5}, {"flip": 0.5},
    ]  # fmt: skip
    assert len({key(data, **more) for more in same}) == 1
    keys = [
        key(data), key(other), key(data, encoder="f"), key(data, Augmentation(0, 0, True)),
        key(data, resize="lanczos"), key(data, resolution=64), key(data, precision="float16"),
        key(data, Augmentation(0.9, 0.0, False), crop="random"),
        key(data, Augmentation(0.0, 0.0, False), crop="random"),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert all(len(k) == 32 for k in keys)
    one, other_weights = (Encoder(BACKBONE, DataSettings(), encoder) for encoder in "ef")
    assert one.prompt_key("a") != one.prompt_key("b") != other_weights.prompt_key("b")
