"""One way to open an image."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from trainers.input.image import FORMATS, BadImage, image_size, open_image, open_rgb

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_meant_is_opened(kind: str) -> None:
    image = Image.fromarray(np.stack([RAMP] * 3, -1))
    found = open_rgb(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert (found.mode, found.size) == ("RGB", (8, 8))
    assert np.abs(np.asarray(found, np.int16) - np.asarray(image)).max() <= (
        8 if kind == "JPEG" else 0
    )


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "TGA", "PCX", "PDF", "SGI", "DDS"])
def test_no_other_decoder_is_started(kind: str) -> None:
    with pytest.raises(BadImage, match="PNG, JPEG"):
        open_image(encode(Image.new("RGB", (16, 16)), kind))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_grey_of_16_bits_is_scaled(kind: str, order: str) -> None:
    wide = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    found = open_image(encode(Image.fromarray(wide.astype(order)), kind))
    assert (found.mode, np.asarray(found).tolist()) == ("L", [[0, 0, 1, 1, 128, 254, 255, 255]])
    exact = encode(Image.fromarray(RAMP.astype(np.uint16) * 257), kind)
    assert np.array_equal(np.asarray(open_image(exact)), RAMP)


def tiff(bits: int, photometric: int, data: bytes, width: int) -> bytes:
    """A grey image of one row; Pillow writes no such ones."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1,
            279: len(data)}  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II" + struct.pack("<HI", 42, 8 + len(data))
    return head + data + struct.pack("<H", len(tags)) + table + bytes(4)


def test_grey_of_12_bits_and_grey_whose_highest_value_is_black() -> None:
    twelve = bytes([0x00, 0x08, 0x00, 0xFF, 0xF3, 0xE8])  # 0, 2048, 4095 and 1000.
    assert np.asarray(open_image(tiff(12, 1, twelve, 4))).tolist() == [[0, 128, 255, 62]]
    wide = np.array([0, 65535, 257, 32768], "<u2").tobytes()
    assert np.asarray(open_image(tiff(16, 0, wide, 4))).tolist() == [[255, 0, 254, 127]]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_of_no_known_range_are_refused(mode: str) -> None:
    with pytest.raises(BadImage, match=f"got mode '{mode}'"):
        open_image(encode(Image.fromarray(RAMP).convert(mode), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_upright(orientation: int, kind: str, dtype: type[np.generic]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(Image.fromarray(RAMP[:4].astype(dtype)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened)
    found = open_image(data)
    shown = np.asarray(upright) if dtype is np.uint8 else (np.asarray(upright) + 128) // 257
    assert np.array_equal(np.asarray(found), shown)
    assert found.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert image_size(data) == (found.height, found.width)


def test_palettes_and_alpha_are_left_to_who_asks() -> None:
    colours = Image.fromarray(np.stack([RAMP] * 4, -1), "RGBA")
    assert open_image(encode(colours, "PNG")).mode == "RGBA"
    assert open_image(encode(colours.convert("P"), "PNG")).mode == "P"
    assert np.array_equal(np.asarray(open_rgb(encode(colours, "PNG")))[..., 0], RAMP)


def test_an_image_of_too_many_pixels_is_no_image() -> None:
    data = encode(Image.new("1", (13500, 13500)), "PNG")
    for read in (open_image, image_size):
        with pytest.raises(BadImage, match="pixels"):
            read(data)


@pytest.mark.parametrize("data", [b"", b"no image", b"version https://git-lfs.github.com/spec/v1"])
def test_other_bytes_are_no_image(data: bytes) -> None:
    for read in (open_image, image_size):
        with pytest.raises(BadImage, match="expected an image"):
            read(data)


WHOLE = [encode(Image.fromarray(np.stack([RAMP] * 3, -1)), kind) for kind in FORMATS]


@given(st.sampled_from(WHOLE), st.data())
def test_damage_is_one_line(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(damaged)))
    for read in (open_image, open_rgb, image_size):
        try:
            read(bytes(damaged[:cut]))
        except BadImage as error:
            assert "\n" not in str(error)


def test_ghostscript_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadImage):
        open_image(encode(Image.new("RGB", (16, 16)), "EPS"))
    assert not (tmp_path / "started").exists()
