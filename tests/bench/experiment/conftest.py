"""An experiment whose stages are on record, with logs and images that no model made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bench.experiment.prepare import Experiment, prepare
from bench.images.folder import image_name, write_index
from bench.results.files import COLUMNS
from bench.spec.model import override, parse_spec
from bench.stages.store import Store
from trainers.files import sha256_file

Finished = Callable[..., tuple[Experiment, Store, pa.Table]]


def line(step: int, seed: int, hard: bool) -> dict[str, Any]:
    """A step as ``trainers.metrics`` logs it, with numbers that tell it apart."""
    tens = {
        f"decile_{who}_{side}": [step / 10] * 10
        for who in ("policy", "reference")
        for side in ("winner", "loser")
    }
    counts = {f"decile_{name}": [1] * 10 for name in ("winners", "losers", "pairs")}
    return {
        "step": step, "loss": step + seed / 8, "policy_winner": 0.5, "policy_loser": 0.25,
        "reference_winner": 0.5, "reference_loser": 0.25, "margin": 0.0, "accuracy": 0.5,
        "divergence": step / 100 if hard and step % 2 == 0 else None,
        "reference_action": "update" if hard and step % 2 == 0 else "none",
        "grad_norm": None if step == 1 else 2.0, "lr": 1e-4, "timestep_deciles": [1] * 10,
        "decile_correct": [0.5] * 10, **counts, **tens, "figures": {"spread": 0.75},
    }  # fmt: skip


def log(folder: Path, steps: int, seed: int, hard: bool) -> None:
    folder.mkdir(parents=True)
    lines = (json.dumps(line(step, seed, hard)) + "\n" for step in range(1, steps + 1))
    (folder / "metrics.jsonl").write_text("".join(lines))


@pytest.fixture
def finished(tiny: dict[str, Any], tmp_path: Path) -> Finished:
    """Logs, images and scores of the tiny experiment with dotted keys of its spec changed.

    Args of the function: ``changes``, and ``side``, the pixels of an image.
    """

    def make(
        changes: dict[str, Any] | None = None, side: int = 16
    ) -> tuple[Experiment, Store, pa.Table]:
        experiment = prepare(parse_spec(override(tiny, changes or {}), "here"))
        store, rng = Store(tmp_path / "store"), np.random.default_rng(0)
        scores: list[tuple[Any, ...]] = []
        for entry in experiment.sets:
            images, train = entry.images, entry.images.train
            inputs = {}
            if train is not None:
                hard = train.config.reference.name == "hard-copy"
                log(train.output(store), train.units, train.config.seed, hard)
                status = store.record(train.kind, train.id, {}, 1.0)
                inputs = {train.id: status.digest}
            rows = []
            images.output(store).mkdir(parents=True)
            for name, prompt in images.prompts:
                for k in range(images.first_index, images.first_index + 1):
                    path = images.output(store) / image_name(prompt, k)
                    pixels = rng.integers(256, size=(side, side, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(path)
                    row = {"prompt": prompt, "k": k, "file": path.name, "sha256": sha256_file(path)}
                    rows.append(row)
                    scores += [
                        ("tiny", entry.arm, "run", entry.seed, name, k, row["sha256"], *rest)
                        for rest in (("oracle", "a", 0.5), ("mini-clip", "b", 0.25))
                    ]
            write_index(images.output(store), rows)
            store.record(images.kind, images.id, inputs, 1.0)
        columns = dict(zip(COLUMNS, map(list, zip(*scores, strict=True)), strict=True))
        return experiment, store, pa.table(columns)

    return make
