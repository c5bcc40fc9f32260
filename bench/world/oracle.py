"""The oracle: reads the content of an image from its pixels, by rules.

No real benchmark has one. It answers two questions: does the image show what the caption asks
for (``fit``), and is it cleanly made (``craft``)? Both feed one score in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.world.scenes import (
    BACKGROUNDS,
    CLEAN,
    COLOURS,
    PLACES,
    SHAPES,
    SIDE,
    SIZES,
    Look,
    Scene,
    render,
    signed_distance,
)

FIT_WEIGHTS = {"shape": 0.30, "colour": 0.25, "background": 0.15, "place": 0.15, "size": 0.15}
"""Weight of each attribute in ``fit``; they sum to 1."""
CRAFT_SHARE = 0.3
"""Share of ``craft`` in the score; the rest is ``fit``."""
OBJECT_CONTRAST = 70.0
"""RGB distance (0-441) from the background at which a pixel belongs to an object."""
SMALLEST_OBJECT = 40
"""Area in pixels below which nothing counts as an object."""
COLOUR_TOLERANCE = 70.0
"""RGB distance at which the credit for a colour has fallen to 1/e."""
CRAFT_TOLERANCE = 0.06
"""Mean absolute residual (0-1) from the clean drawing at which craft has fallen to 1/e."""
POINTED = (0.0, 0.6, 1.2)
"""Pixels by which the tips of a pointed shape may be lost in its mask."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Reading:
    """What the oracle sees: the nearest scene, and the measurements behind it.

    ``scene`` is None if no object was found. Positions and ``radius`` are in pixels, colours in
    RGB 0-255, ``overlaps`` holds the intersection over union with each shape.
    """

    scene: Scene | None
    background: NDArray[np.float64]
    colour: NDArray[np.float64]
    centre: tuple[float, float]
    radius: float
    overlaps: dict[str, float]


@dataclass(frozen=True)
class Judgement:
    """Scores in [0, 1]: the whole, its two parts, and the credit per attribute."""

    score: float
    fit: float
    craft: float
    attributes: dict[str, float]


def read(image: Image) -> Reading:
    """Read the content of an image ``uint8[64, 64, 3]``.

    Raises:
        ValueError: If the image has another shape or dtype.
    """
    if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"expected a uint8 image of shape ({SIDE}, {SIDE}, 3), got {image.dtype} "
            f"{image.shape}: the oracle reads images of the miniature world only"
        )
    pixels = image.astype(np.float64)
    edge = np.concatenate(
        [
            pixels[:3].reshape(-1, 3),
            pixels[-3:].reshape(-1, 3),
            pixels[:, :3].reshape(-1, 3),
            pixels[:, -3:].reshape(-1, 3),
        ]
    )
    background = np.median(edge, axis=0)
    mask = _object_mask(pixels, background)
    if mask is None:
        return Reading(None, background, background, (0.0, 0.0), 0.0, dict.fromkeys(SHAPES, 0.0))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cy, cx = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    radius = (rows[-1] - rows[0] + columns[-1] - columns[0] + 2) / 4
    colour = np.median(pixels[mask], axis=0)
    overlaps = {
        s: max(_overlap(mask, signed_distance(s, cx, cy, radius + r) < 0) for r in POINTED)
        for s in SHAPES
    }
    scene = Scene(
        size=min(SIZES, key=lambda s: abs(SIZES[s] - radius)),
        colour=_nearest(colour, COLOURS),
        shape=max(overlaps, key=lambda s: overlaps[s]),
        place=min(PLACES, key=lambda p: float(np.hypot(PLACES[p][0] - cx, PLACES[p][1] - cy))),
        background=_nearest(background, BACKGROUNDS),
    )
    return Reading(scene, background, colour, (cx, cy), radius, overlaps)


def judge(image: Image, wanted: Scene) -> Judgement:
    """Judge an image ``uint8[64, 64, 3]`` against the scene its caption asks for."""
    seen = read(image)
    attributes = {
        "background": _colour_credit(seen.background, BACKGROUNDS[wanted.background]),
        "colour": 0.0,
        "shape": 0.0,
        "place": 0.0,
        "size": 0.0,
    }
    craft = 0.0
    if seen.scene is not None:
        x, y = PLACES[wanted.place]
        away = np.hypot(x - seen.centre[0], y - seen.centre[1])
        best = max(seen.overlaps.values())
        attributes |= {
            "colour": _colour_credit(seen.colour, COLOURS[wanted.colour]),
            "shape": float(np.clip(2 * seen.overlaps[wanted.shape] - best, 0.0, 1.0)),
            "place": float(np.exp(-((away / 8.0) ** 2))),
            "size": float(np.exp(-(((SIZES[wanted.size] - seen.radius) / 4.0) ** 2))),
        }
        craft = float(np.exp(-_residual(image, seen.scene, seen) / CRAFT_TOLERANCE))
    fit = sum(FIT_WEIGHTS[name] * value for name, value in attributes.items())
    return Judgement((1 - CRAFT_SHARE) * fit + CRAFT_SHARE * craft, fit, craft, attributes)


def _residual(image: Image, scene: Scene, seen: Reading) -> float:
    """Mean absolute difference (0-1) from the clean drawing of what was seen."""
    x, y = PLACES[scene.place]
    look = Look(seen.centre[0] - x, seen.centre[1] - y, seen.radius / SIZES[scene.size])
    clean = render(scene, look if look.scale > 0 else CLEAN)
    return float(np.abs(image.astype(np.float64) - clean).mean() / 255)


def _object_mask(
    pixels: NDArray[np.float64], background: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """The largest object, cut where its colour and the background mix half and half.

    A fixed contrast would make dark objects look larger than pale ones.
    """
    rough = _largest_object(np.linalg.norm(pixels - background, axis=-1) > OBJECT_CONTRAST)
    if rough is None:
        return None
    axis = np.median(pixels[rough], axis=0) - background
    return _largest_object((pixels - background) @ axis > 0.5 * float(axis @ axis))


def _largest_object(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    areas = np.bincount(labels.ravel())[1:]
    if areas.max() < SMALLEST_OBJECT:
        return None
    return np.asarray(labels == 1 + int(areas.argmax()))


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, int((a | b).sum())))


def _nearest(colour: NDArray[np.float64], palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.array(palette[name]))))


def _colour_credit(seen: NDArray[np.float64], wanted: tuple[int, int, int]) -> float:
    distance = float(np.linalg.norm(seen - np.array(wanted)))
    return float(np.exp(-((distance / COLOUR_TOLERANCE) ** 2)))
