"""Prompts that are captions of training pairs: counted, told and limited."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bench.assets import pairs_file
from bench.experiment.collect import make_protocol
from bench.experiment.prepare import Experiment, prepare
from bench.spec.model import load_spec, parse_spec
from bench.spec.model import shipped as specs
from trainers.errors import UserError


@pytest.fixture
def leaking(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Of five prompts two are captions of the pairs, one of them spelt otherwise."""
    captions = pq.read_table(pairs_file())["caption"].unique().to_pylist()
    prompts = [captions[0], captions[1].upper().replace(" ", "  "), "a cat", "a dog", "an owl"]
    lines = [{"id": n, "prompt": prompt} for n, prompt in enumerate(prompts)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {**tiny, "prompts": str(tmp_path / "p.jsonl"), "prompt_limit": None}


def prepared(raw: dict[str, Any]) -> Experiment:
    return prepare(parse_spec(raw, "here"))


def test_a_larger_share_than_is_allowed_is_refused(leaking: dict[str, Any]) -> None:
    expected = r"2 of the 5 prompts of 'p' \(40\.0%\) are captions of .*set allow_shared_prompts"
    with pytest.raises(UserError, match=expected):
        prepared(leaking)
    with pytest.raises(UserError, match=r"expected 39\.0% at most"):
        prepared({**leaking, "allow_shared_prompts": 0.39})


def test_what_is_allowed_is_on_record(leaking: dict[str, Any]) -> None:
    experiment = prepared({**leaking, "allow_shared_prompts": 0.4})
    assert make_protocol(experiment).pairs.shared_prompts == 2


def test_only_pairs_that_are_trained_on_count(leaking: dict[str, Any]) -> None:
    """An arm may choose others: what any of them chooses counts."""
    few = {**leaking["train"].get("data", {}), "subset": 1}
    raw = {**leaking, "train": {**leaking["train"], "data": few}, "allow_shared_prompts": 1}
    assert make_protocol(prepared(raw)).pairs.shared_prompts <= 1


@pytest.mark.parametrize("name", [name for name in specs() if name.startswith("mini")])
def test_shipped_specs_share_none(name: str) -> None:
    """But for the one that asks how it is on captions that pairs have."""
    spec = load_spec(name)
    assert (prepare(spec).shared_prompts > 0) == (spec.allow_shared_prompts == 1)
