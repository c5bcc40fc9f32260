"""A tiny experiment, and tables of made-up scores that need no model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from bench.results.analysis import ArmPlan, Plan
from bench.results.files import write_results


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


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    """A plan of two comparisons over 3 seeds and 20 prompts, with any of its fields changed."""

    def make(**changes: Any) -> Plan:
        fields: dict[str, Any] = {
            "title": "Made-up scores",
            "label": "a test",
            "arms": (
                ArmPlan(name="base", seeds=(None,)),
                ArmPlan(name="DPO", seeds=(0, 1, 2)),
                ArmPlan(name="DPO+A", seeds=(0, 1, 2)),
            ),
            "control": (
                ArmPlan(name="A/A'", seeds=(0, 1, 2)),
                ArmPlan(name="A/A", seeds=(0, 1, 2)),
            ),
            "comparisons": (
                ("DPO", "base", "does DPO beat the base model?"),
                ("DPO+A", "DPO", "does A help DPO?"),
            ),
            "prompts": tuple(f"p{n:02d}" for n in range(20)),
            "images_per_prompt": 1,
            "rewards": {"truth": "higher", "flaws": "lower"},
            "primary": "truth",
            "alpha": 0.05,
            "delta0": None,
            "tie": 0.0,
            "footer": ("as made up by the test.",),
        }
        return Plan(**(fields | changes))

    return make


MakeScores = Callable[..., pd.DataFrame]


@pytest.fixture
def make_scores() -> MakeScores:
    """Scores for a plan: an effect of the prompt, one of the arm, and noise of size ``noise``."""

    def make(
        plan: Plan, effects: Mapping[str, float] | None = None, noise: float = 0.0
    ) -> pd.DataFrame:
        rng = np.random.default_rng(7)
        # Multiples of 1/8 keep sums and differences without noise exact.
        level = {prompt: rng.integers(8) / 8 for prompt in plan.prompts}
        rows = [
            {
                "exp": "made-up",
                "arm": arm.name,
                "run_id": arm.name,
                "train_seed": seed,
                "prompt_id": prompt,
                "k": k,
                "image_sha256": "0" * 64,
                "reward": reward,
                "signature": f"{reward}|1",
                "score": level[prompt] + (effects or {}).get(arm.name, 0.0) + noise * rng.normal(),
            }
            for reward in plan.rewards
            for arm in (*plan.arms, *plan.control)
            for seed in arm.seeds
            for prompt in plan.prompts
            for k in range(plan.images_per_prompt)
        ]
        frame = pd.DataFrame(rows)
        return frame.astype({"train_seed": "Int64"})

    return make


@pytest.fixture
def result_folder(
    tmp_path: Path, make_plan: Callable[..., Plan], make_scores: MakeScores
) -> Callable[..., Path]:
    """Write a result folder of made-up scores, as ``bench ablate`` would."""

    def make(plan: Plan | None = None, scores: pd.DataFrame | None = None) -> Path:
        plan = plan or make_plan()
        if scores is None:
            scores = make_scores(plan, {"DPO": 0.25, "DPO+A": 0.375}, noise=0.1)
        folder = tmp_path / "made-up"
        write_results(folder, plan, pa.Table.from_pandas(scores, preserve_index=False), None)
        return folder

    return make
