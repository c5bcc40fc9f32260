"""A tiny experiment, and logs, images and scores that need no model."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from bench.experiment.prepare import Experiment, prepare
from bench.images.folder import image_name, write_index
from bench.report.folder import render
from bench.results.files import COLUMNS, write_results
from bench.results.protocol import Protocol
from bench.spec.model import override, parse_spec
from bench.stages.store import Store
from trainers.config import TrainConfig
from trainers.files import sha256_file


@pytest.fixture
def tiny(tiny_experiment: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The tiny experiment, to be changed at will."""
    return tiny_experiment()


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[Mapping[str, Any]], str]:
    """Write a spec to a file and give its path."""

    def write(raw: Mapping[str, Any]) -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(dict(raw), sort_keys=False))
        return str(path)

    return write


PROTOCOL: dict[str, Any] = {
    "title": "Made-up scores",
    "label": "a test",
    "bench": "1.2.3",
    "arms": (
        {"name": "base", "seeds": (None,)},
        {"name": "DPO", "seeds": (0, 1, 2)},
        {"name": "DPO+A", "seeds": (0, 1, 2)},
    ),
    "control": ({"name": "A/A'", "seeds": (0, 1, 2)}, {"name": "A/A", "seeds": (0, 1, 2)}),
    "comparisons": (
        {"name": "DPO - base", "on": ("DPO",), "off": ("base",),
         "question": "does DPO beat the base model?"},
        {"name": "DPO+A - DPO", "on": ("DPO+A",), "off": ("DPO",), "question": "does A help DPO?"},
    ),
    "prompts": {
        "name": "made-up",
        "split": "test",
        "sha256": "0123456789ab" + 52 * "0",
        "repeated": 0,
        "ids": tuple(f"p{n:02d}" for n in range(20)),
    },
    "images": {
        "per_prompt": 1, "sampler": "ddim", "steps": 12, "guidance": 7.5, "eta": 0.0,
        "height": None, "width": None, "seed": 3, "dtype": "float32",
        "matmul": "float32",
    },
    "rewards": (
        {"name": "truth", "direction": "higher", "signature": "truth|1"},
        {"name": "flaws", "direction": "lower", "signature": "flaws|1"},
    ),
    "primary": "truth",
    "statistics": {
        "alpha": 0.05, "gain": "DPO - base", "share": 0.2, "bound": None, "tie": 0.0,
    },
    "pairs": {"data": "made-up-pairs", "kept": 90, "ties": 10, "labelled_by": ()},
}  # fmt: skip


@pytest.fixture
def make_protocol() -> Callable[..., Protocol]:
    """A protocol of two comparisons over 3 seeds and 20 prompts, with dotted keys changed."""

    def make(changes: Mapping[str, Any] | None = None) -> Protocol:
        return Protocol.model_validate(override(PROTOCOL, dict(changes or {})))

    return make


MakeScores = Callable[..., pd.DataFrame]


@pytest.fixture
def make_scores() -> MakeScores:
    """Scores for a protocol: an effect of the prompt, one of the arm, and ``noise`` times noise."""

    def make(
        protocol: Protocol, effects: Mapping[str, float] | None = None, noise: float = 0.0
    ) -> pd.DataFrame:
        rng = np.random.default_rng(7)
        # Multiples of 1/8 keep sums and differences without noise exact.
        level = {prompt: rng.integers(8) / 8 for prompt in protocol.prompts.ids}
        rows = [
            {
                "exp": "made-up",
                "arm": arm.name,
                "run_id": arm.name,
                "train_seed": seed,
                "prompt_id": prompt,
                "k": k,
                "image_sha256": "0" * 64,
                "reward": reward.name,
                "signature": reward.signature,
                "score": level[prompt] + (effects or {}).get(arm.name, 0.0) + noise * rng.normal(),
            }
            for reward in protocol.rewards
            for arm in protocol.all_arms()
            for seed in arm.seeds
            for prompt in protocol.prompts.ids
            for k in range(protocol.images.per_prompt)
        ]
        frame = pd.DataFrame(rows)
        return frame.astype({"train_seed": "Int64"})

    return make


@pytest.fixture
def result_folder(
    tmp_path: Path, make_protocol: Callable[..., Protocol], make_scores: MakeScores
) -> Callable[..., Path]:
    """Write a result folder of made-up scores, as ``bench ablate`` would."""

    def make(protocol: Protocol | None = None, scores: pd.DataFrame | None = None) -> Path:
        protocol = protocol or make_protocol()
        if scores is None:
            scores = make_scores(protocol, {"DPO": 0.25, "DPO+A": 0.375}, noise=0.1)
        folder = tmp_path / "made-up"
        write_results(folder, protocol, pa.Table.from_pandas(scores, preserve_index=False), None)
        render(folder)
        return folder

    return make


def apart(config: TrainConfig) -> float:
    """By how much the reference's errors are those of the pretrained model: made up, and exact."""
    rule = config.reference.resolved()
    if rule["name"] == "frozen":
        return 0.0
    factor = 1.5 if config.timesteps.scale.name == "inverse-sqrt-snr" else 1.0
    return factor / rule["tau"] / (1 if rule["delta"] is None else 2)


def line(step: int, config: TrainConfig) -> dict[str, Any]:
    """A step as ``trainers.metrics`` logs it, with numbers that tell it apart."""
    seed, hard = config.seed, config.reference.name == "hard-copy"
    tens = {
        "decile_policy_winner": [step / 8] * 10, "decile_policy_loser": [step / 8] * 10,
        "decile_reference_winner": [step / 8 + apart(config)] * 10,
        "decile_reference_loser": [step / 8] * 10,
    }  # fmt: skip
    counts = {f"decile_{name}": [1] * 10 for name in ("winners", "losers", "pairs")}
    return {
        "step": step, "loss": step + seed / 8, "policy_winner": 0.5, "policy_loser": 0.25,
        "reference_winner": 0.5, "reference_loser": 0.25, "margin": 0.0, "accuracy": 0.5,
        "divergence": step / 100 if hard and step % 2 == 0 else None,
        "reference_action": "update" if hard and step % 2 == 0 else "none",
        "grad_norm": None if step == 1 else 2.0, "lr": 1e-4, "timestep_deciles": [1] * 10,
        "decile_correct": [0.5] * 10, **counts, **tens, "figures": {"spread": 0.75},
    }  # fmt: skip


def log(folder: Path, config: TrainConfig) -> None:
    folder.mkdir(parents=True)
    lines = (json.dumps(line(step, config)) + "\n" for step in range(1, config.steps + 1))
    (folder / "metrics.jsonl").write_text("".join(lines))


Finished = Callable[..., tuple[Experiment, Store, pa.Table]]


@pytest.fixture(scope="session")
def finish(tiny_experiment: Callable[[], dict[str, Any]]) -> Finished:
    """Put logs, images and scores of the tiny experiment on record below a folder.

    Args of the function: the folder, dotted keys of the spec to change, pixels of an image.
    """

    def make(
        root: Path, changes: dict[str, Any] | None = None, side: int = 16
    ) -> tuple[Experiment, Store, pa.Table]:
        experiment = prepare(parse_spec(override(tiny_experiment(), changes or {}), "here"))
        store, rng = Store(root / "store"), np.random.default_rng(0)
        scores: list[tuple[Any, ...]] = []
        for entry in experiment.sets:
            images, train = entry.images, entry.images.train
            inputs = {}
            if train is not None:
                log(train.output(store), train.config)
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
                        for rest in (
                            (reward, experiment.cards[reward]["signature"], rng.normal())
                            for reward in experiment.spec.rewards
                        )
                    ]
            write_index(images.output(store), rows)
            store.record(images.kind, images.id, inputs, 1.0)
        columns = dict(zip(COLUMNS, map(list, zip(*scores, strict=True)), strict=True))
        return experiment, store, pa.table(columns)

    return make


@pytest.fixture
def finished(finish: Finished, tmp_path: Path) -> Finished:
    """The same below the folder of a test."""
    return partial(finish, tmp_path)
