"""Prompt sets of the miniature world: captions of a split, in a fixed random order."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.world.scenes import Scene, scenes
from trainers.files import sha256_file, write_text
from trainers.seeds import numpy_generator

WORDINGS = (
    "on a {background} background a {size} {colour} {shape} at the {place}",
    "at the {place} a {size} {colour} {shape} on a {background} background",
    "a {colour} {size} {shape} on a {background} background at the {place}",
    "at the {place} on a {background} background a {colour} {size} {shape}",
)
"""The words of a caption in orders that no training caption has."""


@dataclass(frozen=True)
class PromptRecipe:
    """What a set holds."""

    split: str
    """Of the scenes."""
    what: str
    use: str
    reworded: bool = False
    limit: int | None = None


SETS = {
    "mini-dev": PromptRecipe("dev", "all captions", "exploration and tuning"),
    "mini-test": PromptRecipe("test", "all captions", "final results only"),
    "mini-test-hard": PromptRecipe(
        "test", "all captions, their words in orders that no training caption has,",
        "final results only: harder than mini-test", reworded=True,
    ),
    "mini-train": PromptRecipe(
        "train", "300 captions", "final results only: captions that training pairs may have",
        limit=300,
    ),
}  # fmt: skip
"""By name."""


def write_prompts(folder: Path, name: str) -> None:
    """Write ``<name>.jsonl`` and its card into ``folder``."""
    recipe = SETS[name]
    pool = scenes(recipe.split)
    order = numpy_generator(0, "mini prompts", recipe.split).permutation(len(pool))[: recipe.limit]
    say = _reworded() if recipe.reworded else lambda scene: scene.caption
    rows = [{"id": f"{name}-{n:03d}", "prompt": say(pool[i])} for n, i in enumerate(order)]
    path = folder / f"{name}.jsonl"
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    card = {
        "name": name,
        "source": f"{recipe.what} of the miniature world in its {recipe.split} split, in a fixed "
        "random order",
        "licence": "Apache-2.0",
        "split": recipe.split,
        "datasets": [f"mini-world/{recipe.split}"],
        "prompts": len(rows),
        "sha256": sha256_file(path),
        "use": recipe.use,
    }
    write_text(path.with_suffix(".yaml"), yaml.safe_dump(card, sort_keys=False))


def _reworded() -> Callable[[Scene], str]:
    """One of the wordings for each scene."""
    rng = numpy_generator(0, "mini prompts", "wordings")
    return lambda scene: WORDINGS[rng.integers(len(WORDINGS))].format(**vars(scene))
