"""Images and prompts that implementations of a reward may treat differently.

Imports numpy and PIL alone: it runs in this project's environment and in that of the published
packages.
"""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent
GOLDEN = HERE / "golden.json"
SIDE = 224
"""What every model of the rewards looks at, in pixels."""

PROMPTS = {
    "plain": "a photo of an astronaut in an orange suit",
    "empty": "",
    "blank": "  \t ",
    "upper": "A TABBY CAT, Closeup, HIGH Quality",
    "long": ", ".join(
        f"a {colour} {thing} {place}"
        for colour in ("red", "green", "blue", "white")
        for thing in ("cup", "cat", "rocket")
        for place in ("on a wooden table", "under the moon")
    ),
    "middling": "a cup of coffee on a saucer, with a spoon, on a table of dark wood, seen from "
    "above, in the soft light of a morning in winter, slightly out of focus, 35mm film",
    "numbers": "3 cats & 12 dogs, 1984, 4k, f/1.8, 50%, #1",
    "apostrophes": "it's the cat's; they'll say we've won, I'd say I'm not",
    "curly": "\u201cthe cat\u2019s cup\u201d \u2014 a still life\u2026",
    "entities": "cats &amp; dogs &lt;3 &quot;coffee&quot; &amp;amp; tea",
    "spaces": "a cat\n\non   a\ttable  ",
    "emoji": "a cat \U0001f431 and a coffee \u2615\ufe0f \U0001f469\u200d\U0001f680",
    "accents": "caf\u00e9 au lait, na\u00efve \u00c5ngstr\u00f6m, cafe\u0301, \u0130stanbul "
    "stra\u00dfe",
    "scripts": "\u732b\u3068\u30b3\u30fc\u30d2\u30fc, \u043a\u043e\u0448\u043a\u0430, "
    "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3",
    "ligature": "the \ufb01rst \ufb02ower, \uff26\uff35\uff2c\uff2c width, x\u00b2",
    "mojibake": "caf\u00c3\u00a9 with the cat\u00e2\u20ac\u2122s milk",
    "end": "a cat <|endoftext|> and a dog",
    "other-end": "a cat <end_of_text> and a dog <start_of_text>",
    "added": "a cat [ENC] on a table [DEC]",
    "brackets": "a [MASK] and a cat [SEP] on a table [UNK]",
    "zero-width": "a c\u200bat\u00a0on \u00ada table\u3000now",
}
"""Prompts by name."""


def images() -> dict[str, Image.Image]:
    """Images by name: photographs cut to awkward sizes and stored in awkward modes."""
    astronaut, coffee, chelsea = (_photograph(n) for n in ("astronaut", "coffee", "chelsea"))
    found = {
        "square": astronaut,
        "exact": astronaut.resize((SIDE, SIDE), Image.Resampling.LANCZOS),
        "wide": coffee,
        # Scaled to a width of 224 + 111: half the margin, 55.5, is where roundings part.
        "wide-odd": coffee.resize((335, 224), Image.Resampling.LANCZOS),
        "tall": coffee.rotate(90, expand=True),
        "tall-odd": chelsea.resize((336, 224), Image.Resampling.LANCZOS)
        .rotate(90, expand=True)
        .crop((0, 0, 224, 335)),
        "odd": chelsea,
        "small": chelsea.resize((97, 61), Image.Resampling.LANCZOS),
        "strip": coffee.crop((0, 120, 420, 161)),
        "large": astronaut.resize((1024, 1024), Image.Resampling.BICUBIC),
        "grey": astronaut.convert("L"),
        "palette": chelsea.quantize(32, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE),
        "alpha": _faded(coffee),
        "grey-alpha": _faded(chelsea).convert("LA"),
        "turned": Image.open(HERE / "images/chelsea-rotated.jpg"),
    }
    for image in found.values():
        image.load()
    return found


STRANGE = ("palette", "alpha", "grey-alpha", "turned")
"""Images that a published implementation may not read as a viewer would show them."""


def plain(image: Image.Image) -> Image.Image:
    """The image upright and in RGB without alpha, which nobody reads in two ways."""
    return ImageOps.exif_transpose(image).convert("RGB")


def pairs() -> list[tuple[str, str]]:
    """Names of the images and prompts that are scored: every one, and one of each in full."""
    names, texts = list(images()), list(PROMPTS)
    return [
        *((name, "plain") for name in names),
        *(("wide", text) for text in texts if text != "plain"),
        *((name, texts[(3 * i + 1) % len(texts)]) for i, name in enumerate(names)),
    ]


def source(image: Image.Image) -> str:
    """Hash of the bytes an image was decoded to: they must agree before anything is compared."""
    content = image.mode.encode() + repr(image.size).encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def digest(pixels: np.ndarray) -> dict[str, object]:
    """What is kept of ``[3, 224, 224]`` pixels: 64 of them, and two sums in float64."""
    flat = np.asarray(pixels, dtype=np.float64).ravel()
    where = np.random.Generator(np.random.PCG64(64)).choice(3 * SIDE * SIDE, 64, replace=False)
    return {
        "sample": [round(float(v), 7) for v in flat[where]],
        "sum": float(flat.sum()),
        "squares": float((flat**2).sum()),
    }


def features(values: np.ndarray) -> dict[str, object]:
    """What is kept of a feature vector: its length, and 8 values of it at length 1."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    norm = float(np.linalg.norm(flat))
    return {"norm": norm, "unit": [round(float(v), 9) for v in flat[:8] / norm]}


def _photograph(name: str) -> Image.Image:
    return Image.open(HERE / f"images/{name}.jpg").convert("RGB")


def _faded(image: Image.Image) -> Image.Image:
    """RGBA whose alpha falls from left to right, from opaque to nothing."""
    alpha = np.linspace(255, 0, image.width).round().astype(np.uint8)
    faded = image.convert("RGBA")
    faded.putalpha(Image.fromarray(np.tile(alpha, (image.height, 1))))
    return faded
