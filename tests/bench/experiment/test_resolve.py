"""The training runs of a spec are there without what judges them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run
from bench.experiment.prepare import prepare
from bench.experiment.resolve import Runs
from bench.spec.model import override, parse_spec
from trainers.errors import UserError

Spec = dict[str, Any]


def without_judges(tiny: Spec) -> Spec:
    """The tiny experiment with a reward whose weights are not here, and prompts that are not."""
    return {**tiny, "rewards": ["pickscore"], "primary": "pickscore", "prompts": "not-here.jsonl"}


def test_runs_are_those_of_the_whole_experiment(tiny: Spec) -> None:
    spec = parse_spec(override(tiny, {"prompts": "mini-dev"}), "tiny")
    runs, experiment = Runs(spec), prepare(spec)
    found = {e.images.train.id for e in experiment.sets if e.images.train is not None}
    assert {runs.train(arm, seed).id for arm in runs.matrix.arms for seed in (0, 1)} == found
    assert len(found) == 8
    assert (experiment.pairs, experiment.ties) == (5076, 924)


def test_an_arm_is_trained_without_prompts_and_weights_of_rewards(
    tiny: Spec, write_spec: Callable[[Mapping[str, Any]], str], tmp_path: Path
) -> None:
    spec = write_spec(override(without_judges(tiny), {"train.data": {"subset": 8}}))
    with pytest.raises(UserError):
        prepare(parse_spec(without_judges(tiny), "tiny"))
    out = tmp_path / "out"
    assert run(["train", "DPO+A", spec, "--out", str(out)]) == 0
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    log = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]


def test_runs_whose_pairs_are_encoded_alike_share_a_stage(tiny: Spec) -> None:
    tiny["controls"] = {
        "swapped": {"of": "DPO", "set": {"data.swap_labels": True}},
        "few": {"of": "DPO", "set": {"data.subset": 8}},
    }
    runs = Runs(parse_spec(override(tiny, {"train.data": {}}), "tiny"))
    stages = {arm.name: runs.train(arm, 0).encode for arm in runs.matrix.arms}
    assert stages["swapped"] is stages["DPO"] is stages["DPO+A+B"]
    assert (stages["DPO"].label, stages["few"].label) == ("encodings", "encodings 2")
    assert (stages["DPO"].pairs, stages["few"].pairs) == (5076, 8)
