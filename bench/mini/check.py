"""How good the base model of the miniature world is, in the eyes of the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from PIL import Image

from bench.assets import model_folder
from bench.images.draw import draw, load_pipeline
from bench.spec.model import Generate
from bench.spec.prompts import load_prompts
from bench.stats import wilson
from bench.terminal import Column, print_table
from bench.world import oracle
from bench.world.scenes import WORDS, parse

BATCH = 25
GRID_COLUMNS = 10


@dataclass(frozen=True)
class Check:
    """Shares of images with an attribute right, and mean scores in [0, 1]."""

    images: int
    right: dict[str, int]
    """Images by what is right: each attribute, the first three together, all five."""
    score: float
    fit: float
    craft: float


def check(prompts: str, limit: int, guidance: float, steps: int, grid: Path | None) -> Check:
    """Sample one image per prompt from ``mini-sd`` and let the oracle read it."""
    texts = [prompt for _, prompt in load_prompts(prompts, limit).items]
    settings = Generate(sampler="ddim", steps=steps, guidance=guidance)
    pipeline = load_pipeline(model_folder("mini-sd"), None, settings.sampler)
    images: list[Image.Image] = []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        images += draw(pipeline, part, [(prompt, 0) for prompt in part], settings)
    if grid is not None:
        picture_grid(images[: 6 * GRID_COLUMNS], GRID_COLUMNS).save(grid)
    return _judge(images, texts)


def _judge(images: Sequence[Image.Image], prompts: Sequence[str]) -> Check:
    names = [*WORDS, "colour, shape and background", "all five"]
    right = dict.fromkeys(names, 0)
    judgements = []
    for image, prompt in zip(images, prompts, strict=True):
        pixels, wanted = np.asarray(image.convert("RGB")), parse(prompt)
        seen = oracle.read(pixels).scene
        hit = {n: seen is not None and getattr(seen, n) == getattr(wanted, n) for n in WORDS}
        hit[names[-2]] = hit["colour"] and hit["shape"] and hit["background"]
        hit[names[-1]] = all(hit[n] for n in WORDS)
        for name in names:
            right[name] += hit[name]
        judgements.append(oracle.judge(pixels, wanted))
    means = [float(np.mean([getattr(j, n) for j in judgements])) for n in ("score", "fit", "craft")]
    return Check(len(images), right, *means)


def picture_grid(images: Sequence[Image.Image], columns: int, scale: int = 2) -> Image.Image:
    """Equally large images side by side, ``scale`` times enlarged without smoothing."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet.resize((scale * sheet.width, scale * sheet.height), Image.Resampling.NEAREST)


def print_check(result: Check) -> None:
    """Print shares with Wilson 95 % intervals, and mean scores."""
    columns = [Column(name) for name in ("what is right", "share", "95 % interval")]
    rows = []
    for name, count in result.right.items():
        low, high = wilson(count / result.images, result.images)
        rows.append((name, f"{count / result.images:.3f}", f"{low:.3f} to {high:.3f}"))
    print_table(columns, rows, f"oracle on {result.images} images of mini-sd")
    typer.echo(f"score {result.score:.4f}, fit {result.fit:.4f}, craft {result.craft:.4f}")
