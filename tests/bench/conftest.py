"""A tiny experiment, and tables of made-up scores that need no model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from bench.report.folder import render
from bench.results.files import write_results
from bench.results.protocol import Protocol
from bench.spec.model import override


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
