"""Scenes, captions and the renderer of the miniature world.

A scene is one object on a plain background, described by five attributes. Real photographs of a
subject differ in craft, and so do these: a scene is rendered clean or with faults (clutter, faded
colour, soft edges, uneven light), so that a model trained on them has something to be aligned to.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.seeds import derive

SIDE = 64
"""Width and height of an image in pixels."""

SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (30, 145, 55),
    "blue": (40, 70, 215),
    "yellow": (240, 205, 25),
    "purple": (135, 45, 170),
    "orange": (245, 130, 25),
    "black": (25, 25, 30),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (248, 248, 246),
    "grey": (170, 172, 176),
    "pink": (250, 190, 210),
    "mint": (180, 235, 200),
    "sky": (170, 215, 250),
}
SIZES: dict[str, float] = {"small": 9.0, "large": 15.0}
PLACES: dict[str, tuple[float, float]] = {
    "left": (18.0, 32.0),
    "right": (46.0, 32.0),
    "top": (32.0, 18.0),
    "bottom": (32.0, 46.0),
    "centre": (32.0, 32.0),
}


@dataclass(frozen=True)
class Scene:
    """What a caption asks for. Every field holds one word of the tables above."""

    size: str
    colour: str
    shape: str
    place: str
    background: str

    @property
    def caption(self) -> str:
        """The caption, e.g. ``a small red circle at the left on a pink background``."""
        return (
            f"a {self.size} {self.colour} {self.shape} at the {self.place} "
            f"on a {self.background} background"
        )


WORDS: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "place": tuple(PLACES),
    "background": tuple(BACKGROUNDS),
}
"""The words that each attribute of a scene can take."""


@dataclass(frozen=True)
class Look:
    """How a scene is drawn: position and size jitter in pixels, and faults in [0, 1]."""

    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    softness: float = 0.0
    fade: float = 0.0
    light: float = 0.0
    light_angle: float = 0.0
    clutter: tuple[tuple[float, float, float, int], ...] = ()
    """Specks as (x, y, radius, index into the colours)."""


CLEAN = Look()


@cache
def all_scenes() -> tuple[Scene, ...]:
    """Every scene of the world, in a fixed order."""
    return tuple(Scene(*words) for words in product(*(WORDS[f.name] for f in fields(Scene))))


def split_of(scene: Scene) -> str:
    """``train``, ``dev`` or ``test``: a hash of the caption, so the split never moves."""
    ticket = derive(0, "mini-world split", scene.caption) % 100
    return "test" if ticket < 15 else "dev" if ticket < 25 else "train"


@cache
def scenes(split: str) -> tuple[Scene, ...]:
    """The scenes of one split, in a fixed order."""
    return tuple(s for s in all_scenes() if split_of(s) == split)


def parse(caption: str) -> Scene:
    """Read a caption back.

    Raises:
        ValueError: If the caption does not describe exactly one scene of the world.
    """
    words = caption.lower().replace(",", " ").split()
    found = {name: [w for w in words if w in options] for name, options in WORDS.items()}
    if any(len(set(hits)) != 1 for hits in found.values()):
        raise ValueError(
            f"expected a caption such as {all_scenes()[0].caption!r}, got {caption!r}: "
            "the oracle reads miniature-world captions only"
        )
    return Scene(**{name: hits[0] for name, hits in found.items()})


def signed_distance(shape: str, cx: float, cy: float, radius: float) -> NDArray[np.float64]:
    """Distance in pixels to the outline of a shape, negative inside; array ``[64, 64]``.

    ``radius`` is half the side of the bounding box, the same for every shape.
    """
    if shape not in _OUTLINES:
        raise ValueError(f"unknown shape {shape!r}: expected one of {', '.join(SHAPES)}")
    return np.asarray(_OUTLINES[shape](_COLUMNS - cx, _ROWS - cy, radius), dtype=np.float64)


def _cross(x: Any, y: Any, radius: float) -> Any:
    arm, ax, ay = 0.36 * radius, np.abs(x), np.abs(y)
    return np.minimum(np.maximum(ax - arm, ay - radius), np.maximum(ay - arm, ax - radius))


_OUTLINES: dict[str, Callable[[Any, Any, float], Any]] = {
    "circle": lambda x, y, r: np.hypot(x, y) - r,
    "square": lambda x, y, r: np.maximum(np.abs(x), np.abs(y)) - r,
    "triangle": lambda x, y, r: np.maximum((2 * np.abs(x) - y - r) / np.sqrt(5), y - r),
    "cross": _cross,
    "ring": lambda x, y, r: np.abs(np.hypot(x, y) - 0.76 * r) - 0.24 * r,
    "diamond": lambda x, y, r: (np.abs(x) + np.abs(y) - r) / np.sqrt(2),
}
_ROWS, _COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64) + 0.5


def render(scene: Scene, look: Look = CLEAN) -> NDArray[np.uint8]:
    """Draw a scene as an RGB image ``uint8[64, 64, 3]``."""
    canvas = np.empty((SIDE, SIDE, 3))
    canvas[:] = BACKGROUNDS[scene.background]
    palette = list(COLOURS.values())
    for x, y, radius, index in look.clutter:
        _paint(canvas, np.hypot(_COLUMNS - x, _ROWS - y) - radius, palette[index], 1.0)
    cx, cy = PLACES[scene.place]
    outline = signed_distance(
        scene.shape, cx + look.dx, cy + look.dy, SIZES[scene.size] * look.scale
    )
    ink = (1 - look.fade) * np.array(COLOURS[scene.colour]) + look.fade * canvas[0, 0]
    _paint(canvas, outline, ink, 1.0 + 6.0 * look.softness)
    slope = np.cos(look.light_angle) * (_COLUMNS - 32) + np.sin(look.light_angle) * (_ROWS - 32)
    canvas *= 1.0 + look.light * (slope / 45.0)[..., None]
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _paint(
    canvas: NDArray[np.float64],
    outline: NDArray[np.float64],
    ink: NDArray[np.float64] | tuple[int, int, int],
    width: float,
) -> None:
    """Blend ``ink`` into ``canvas`` inside ``outline`` with an edge of ``width`` pixels."""
    alpha = np.clip(0.5 - outline / width, 0.0, 1.0)[..., None]
    canvas += alpha * (np.asarray(ink, dtype=np.float64) - canvas)


def draw_look(rng: np.random.Generator, fault_rate: float = 0.35) -> Look:
    """Draw a look: jitter always, each fault with probability ``fault_rate``."""
    faulty = rng.random(4) < fault_rate
    strength = rng.uniform(0.3, 1.0, 4)
    specks = tuple(
        (
            float(rng.uniform(3, SIDE - 3)),
            float(rng.uniform(3, SIDE - 3)),
            float(rng.uniform(1.5, 3.5)),
            int(rng.integers(len(COLOURS))),
        )
        for _ in range(int(np.ceil(5 * strength[0])))
    )
    return Look(
        dx=float(rng.uniform(-2, 2)),
        dy=float(rng.uniform(-2, 2)),
        scale=float(rng.uniform(0.93, 1.07)),
        softness=float(strength[1] * faulty[1]),
        fade=float(0.6 * strength[2] * faulty[2]),
        light=float(0.35 * strength[3] * faulty[3]),
        light_angle=float(rng.uniform(0, 2 * np.pi)),
        clutter=specks if faulty[0] else (),
    )


def mislabel(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one attribute replaced by a wrong word, as in careless web captions."""
    name = str(rng.choice(list(WORDS)))
    others = [w for w in WORDS[name] if w != getattr(scene, name)]
    return Scene(**{**scene.__dict__, name: str(rng.choice(others))})
