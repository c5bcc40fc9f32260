"""Files that are no spec, or not quite one: each ends in one line that does not show the file."""

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import run
from bench.spec.model import override

SECRET = "correct-horse-battery-staple"
"""Stands in the file, and never in a message."""
HUGE = 10**400
NOT_YAML: dict[str, bytes] = {
    "binary": bytes(range(256)) * 4,
    "empty": b"",
    "a comment": b"# nothing\n",
    "a scalar": f"{SECRET} {SECRET}".encode(),
    "a list": f"- {SECRET}\n- b\n".encode(),
    "a list of lists": f"[[[{SECRET}]]]".encode(),
    "several documents": f"a: {SECRET}\n---\nb: 1\n".encode(),
    "latin-1": f"title: caf\xe9 {SECRET}".encode("latin-1"),
    "UTF-16": f"title: {SECRET}".encode("utf-16"),
    "a NUL": f"title: {SECRET}\0".encode(),
    "a tab": f"\ttitle: {SECRET}".encode(),
    "open": f"title: [{SECRET}".encode(),
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00",
    "a python object": b"a: !!python/object/apply:os.system ['true']\n",
    "a tag of its own": f"a: !mine {SECRET}\n".encode(),
    "a null key": f"null: {SECRET}\n".encode(),
    "a number as key": f"1: {SECRET}\n".encode(),
    "a boolean as key": f"on: {SECRET}\n".encode(),
    "a list as key": f"? [a, {SECRET}]\n: 1\n".encode(),
    "a date as key": f"2020-01-01: {SECRET}\n".encode(),
    "a key twice": f"title: {SECRET}\ntitle: b\n".encode(),
    "deep lists": b"a: " + b"[" * 5000 + b"]" * 5000,
    "deep mappings": b"a: " + b"{b: " * 3000 + b"1" + b"}" * 3000,
    "a bomb": b"a0: &a0 [x, x]\n"
    + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
    ),
    "itself": b"a: &a [*a]\n",
    "an unknown alias": b"a: *nobody\n",
    "many digits": b"a: " + b"9" * 5000,
    "many hex digits": b"a: 0x" + b"f" * 5000,
    "control characters": b"title: a\x07b\n",
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}
"""Whole files."""

CHANGES: dict[str, dict[str, Any]] = {
    "seeds as booleans": {"seeds": [True, False]},
    "seeds as texts": {"seeds": ["zero"]},
    "a negative seed": {"seeds": [-1]},
    "a seed of 2**63": {"seeds": [2**63]},
    "a seed of 400 digits": {"seeds": [HUGE]},
    "half a seed": {"seeds": [0.5]},
    "a seed as date": {"seeds": [date(2020, 1, 1)]},
    "a seed twice": {"seeds": [1, 1]},
    "one seed": {"seeds": 1},
    "seeds as mapping": {"seeds": {"a": 1}},
    "seeds as set": {"seeds": {1, 2}},
    "no seeds": {"seeds": []},
    "many seeds": {"seeds": list(range(10_001))},
    "steps as boolean": {"train.steps": True},
    "negative steps": {"train.steps": -3},
    "infinite steps": {"train.steps": float("inf")},
    "huge steps": {"train.steps": HUGE},
    "steps as list": {"train.steps": [3]},
    "no steps": {"train.steps": None},
    "batch size as boolean": {"train.batch_size": True},
    "huge batch": {"train.batch_size": 10**12},
    "lr as NaN": {"train.optimizer.lr": float("nan")},
    "lr as infinity": {"train.optimizer.lr": float("inf")},
    "lr as boolean": {"train.optimizer.lr": True},
    "lr as text": {"train.optimizer.lr": "fast"},
    "lr of 400 digits": {"train.optimizer.lr": HUGE},
    "beta as boolean": {"train.objective.beta": True},
    "train as list": {"train": [SECRET]},
    "train as text": {"train": "dpo"},
    "an optimiser as text": {"train.optimizer": "adamw"},
    "an optimiser as list": {"train.optimizer": [SECRET]},
    "an objective without name": {"train.objective": {"secret": SECRET}},
    "an unknown objective": {"train.objective": {"name": "dop"}},
    "a name as list": {"train.objective": {"name": [SECRET]}},
    "an unknown key of train": {"train.stepz": 3},
    "alpha of 1e-300": {"statistics": {"alpha": 1e-300}},
    "alpha as boolean": {"statistics": {"alpha": True}},
    "alpha as NaN": {"statistics": {"alpha": float("nan")}},
    "an infinite tie": {"statistics": {"tie": float("inf")}},
    "a negative tie": {"statistics": {"tie": -1}},
    "an infinite bound": {"statistics": {"equivalence": {"bound": float("inf")}}},
    "a share of 1": {"statistics": {"equivalence": {"share": 1.0}}},
    "many control pairs": {"statistics": {"control_pairs": 100_000}},
    "control pairs as boolean": {"statistics": {"control_pairs": True}},
    "infinite guidance": {"generate.guidance": float("inf")},
    "guidance as NaN": {"generate.guidance": float("nan")},
    "guidance as boolean": {"generate.guidance": True},
    "eta above 1": {"generate.eta": 2},
    "many sampler steps": {"generate.steps": 10**12},
    "negative images": {"generate.images_per_prompt": -1},
    "huge images": {"generate.height": 16 * 10**9},
    "a negative seed of images": {"generate.seed": -1},
    "generate as list": {"generate": [SECRET]},
    "a long sampler": {"generate.sampler": "x" * 10_000},
    "an unknown sampler": {"generate.sampler": "magic"},
    "no prompts": {"prompts": None},
    "prompts as list": {"prompts": [SECRET]},
    "unknown prompts": {"prompts": "nowhere.txt"},
    "long prompts": {"prompts": "x" * 10_000},
    "a folder of prompts": {"prompts": "."},
    "a negative limit": {"prompt_limit": -1},
    "a limit as boolean": {"prompt_limit": True},
    "a limit above the set": {"prompt_limit": 10**9},
    "rewards as text": {"rewards": "oracle"},
    "an unknown reward": {"rewards": ["orcale"], "primary": "orcale"},
    "no rewards": {"rewards": []},
    "rewards as numbers": {"rewards": [1]},
    "another primary": {"primary": "beauty"},
    "no base": {"base": None},
    "an unknown base": {"base": "nowhere"},
    "a long base": {"base": "x" * 10_000},
    "a base in the shadows": {"base": "a\udc80b"},
    "an unknown backbone": {"backbone": "stable"},
    "unknown data": {"data": "nowhere.parquet"},
    "data without name": {"data": {"path": SECRET}},
    "data as number": {"data": 3},
    "an empty name": {"name": ""},
    "a name with a slash": {"name": "../up"},
    "a name in markup": {"name": "[/red]"},
    "a long name": {"name": "a" * 10_000},
    "a long title": {"title": "a" * 10_000},
    "a title of half a character": {"title": "a\ud800"},
    "a title that rings": {"title": "a\x07"},
    "a title as list": {"title": [SECRET]},
    "a title as bytes": {"title": b"abc"},
    "objectives as list": {"objectives": [SECRET]},
    "no objectives": {"objectives": {}},
    "an objective that is none": {"objectives": {"DPO": None}},
    "a long objective": {"objectives": {"x" * 10_000: {}}},
    "an objective that rings": {"objectives": {"a\x1b[31m": {}}},
    "an objective called base": {"objectives": {"base": {}}},
    "many objectives": {"objectives": {f"o{n}": {} for n in range(2000)}},
    "many components": {
        "components": {f"c{n}": {"label": "c", "set": {"steps": 3}} for n in range(40)}
    },
    "a component without changes": {"components": {"A": {"label": "a", "set": {}}}},
    "a component as list": {"components": {"A": [SECRET]}},
    "components that set one key": {
        "components": {k: {"label": "c", "set": {"steps": 3}} for k in "AB"}
    },
    "a control of nothing": {"controls": {"c": {"of": SECRET[:4], "set": {"steps": 3}}}},
    "a control called as an arm": {"controls": {"DPO": {"of": "DPO", "set": {"steps": 3}}}},
    "a comparison of nothing": {"comparisons": ["x - y"]},
    "a comparison as number": {"comparisons": [3]},
    "an interaction of three": {"comparisons": [{"interaction": ["A", "B", "C"], "of": "DPO"}]},
    "negative cost": {"cost.pair": -1},
    "cost as NaN": {"cost.pair": float("nan")},
    "many processes": {"training.processes": 10**9},
    "quick as list": {"quick": [SECRET]},
    "quick with infinity": {"quick": {"train.steps": float("inf")}},
    "an unknown key": {"sedes": [0]},
    "a key through a value": {"components.A.set": {"steps.x": 3}},
    "extends a list": {"extends": [SECRET]},
    "extends nothing": {"extends": "nobody.yaml"},
    "extends a folder": {"extends": "."},
    "extends itself": {"extends": "spec.yaml"},
    "extends too long a name": {"extends": "a" * 5000},
    "extends a pipe": {"extends": "pipe"},
    "extends a loop": {"extends": "loop"},
    "extends what is no spec": {"extends": "foreign.yaml"},
}
"""Dotted keys of a spec that is right otherwise; what cannot stand in YAML is written otherwise."""


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[bytes], str]:
    """The one line that a file ends in."""
    monkeypatch.chdir(tmp_path)

    def ends(content: bytes) -> str:
        Path("spec.yaml").write_bytes(content)
        assert run(["ablate", "spec.yaml", "--plan"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("bench: ") and err.count("\n") == 1 and err.endswith("\n")
        assert SECRET not in err and len(err) < 1500 and err[:-1].isprintable()
        assert "spec.yaml" in err
        return err

    return ends


@pytest.mark.parametrize("content", NOT_YAML.values(), ids=NOT_YAML)
def test_what_is_no_spec_ends_in_one_line(refused: Callable[[bytes], str], content: bytes) -> None:
    refused(content)


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_wrong_value_ends_in_one_line(
    refused: Callable[[bytes], str], tiny: dict[str, Any], changes: dict[str, Any]
) -> None:
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    Path("foreign.yaml").write_text(f"users: {{root: {SECRET}}}\n")
    raw = override(tiny, changes)
    refused(yaml.dump(raw, sort_keys=False, allow_unicode=False).encode())
