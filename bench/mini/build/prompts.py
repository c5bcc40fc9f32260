"""Prompt sets of the miniature world: every caption of a split, in a fixed random order."""

import json
from pathlib import Path

import yaml

from bench.world.scenes import scenes
from trainers.files import sha256_file, write_text
from trainers.seeds import numpy_generator

USES = {"dev": "exploration and tuning", "test": "final results only"}


def write_prompts(folder: Path, split: str) -> None:
    """Write ``mini-<split>.jsonl`` and its card into ``folder``."""
    pool = scenes(split)
    order = numpy_generator(0, "mini prompts", split).permutation(len(pool))
    rows = [{"id": f"mini-{split}-{n:03d}", "prompt": pool[i].caption} for n, i in enumerate(order)]
    path = folder / f"mini-{split}.jsonl"
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    card = {
        "name": f"mini-{split}",
        "source": f"all captions of the miniature world in its {split} split, in a random order",
        "licence": "Apache-2.0",
        "split": split,
        "prompts": len(rows),
        "sha256": sha256_file(path),
        "use": USES[split],
    }
    write_text(path.with_suffix(".yaml"), yaml.safe_dump(card, sort_keys=False))
