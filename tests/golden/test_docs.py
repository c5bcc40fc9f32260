"""The page on specs names every key there is, and its examples are specs."""

import importlib.util
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from bench.cli import run
from bench.cli.catalogue import catalogue, markdown
from bench.spec.matrix import build_matrix
from bench.spec.model import (
    Cost,
    Encoding,
    Equivalence,
    Generate,
    Scoring,
    Spec,
    Statistics,
    Training,
    load_spec,
)
from trainers.config import TrainConfig
from trainers.data.settings import DataSettings
from trainers.noising import NOISINGS
from trainers.objectives.conformance import check
from trainers.registry import Registry, build
from trainers.safeguards import SAFEGUARDS

PAGE = (Path(__file__).parents[2] / "docs/specs.md").read_text()
RESOLVED = {"version", "backbone", "base_sha256", "data_sha256", "seed"}
"""Fields of a run that the spec gives elsewhere, or cannot change."""
KINDS: dict[type[BaseModel], set[str]] = {
    Spec: set(), Generate: set(), Encoding: set(), Training: set(), Scoring: set(),
    Statistics: set(), Equivalence: set(), Cost: set(), DataSettings: set(),
    TrainConfig: RESOLVED,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_key_is_named(kind: type[BaseModel]) -> None:
    for field in set(kind.model_fields) - KINDS[kind]:
        named = (
            f"`{field}`" in PAGE
            or f"{field}:" in PAGE
            or f"`{kind.__name__.lower()}.{field}`" in PAGE
        )
        assert named, field


def test_the_objective_of_the_guide_is_a_whole_file(tmp_path: Path) -> None:
    """As it stands, in a file of its own, it passes every check."""
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    block = guide.split("one line in `trainers/objectives/__init__.py`:\n\n")[1]
    path = tmp_path / "exponential.py"
    path.write_text(textwrap.dedent(block.split("\n`trainers.objectives.conformance")[0]))
    assert 15 <= len(path.read_text().splitlines()) <= 40
    spec = importlib.util.spec_from_file_location("exponential", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "exponential", module)
        spec.loader.exec_module(module)
        check(module.Exponential())
        one_line = {"exponential": "exponential:Exponential"}
        made = build(Registry("objective", "of the guide", one_line), {"name": "exponential"})
        assert made == module.Exponential()


def test_the_table_of_objectives_is_that_of_the_command() -> None:
    page = (Path(__file__).parents[2] / "docs/objectives.md").read_text()
    assert f"\n\n{markdown(catalogue('objectives')['objectives'])}\n\n" in page
    for name in (*SAFEGUARDS.names(), *NOISINGS.names()):
        assert f"`{name}`" in page or f"name: {name}" in page, name


def test_the_page_of_the_evidence_is_what_its_scores_give() -> None:
    root = Path(__file__).parents[2]
    page = root / "docs/report.html"
    assert run(["report", str(root / "results/mini-table-4"), "--out", str(page), "--check"]) == 0


def examples() -> list[dict[str, Any]]:
    blocks = [block for block in PAGE.split("\n\n") if block.startswith("    extends: ")]
    return [yaml.safe_load(block) for block in blocks]


def test_the_examples_are_specs(tmp_path: Path) -> None:
    first, second = examples()
    for number, example in enumerate((first, second)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(example))
        found = build_matrix(load_spec(str(path)), "0" * 64, "1" * 64)
        names = {comparison.name for comparison in found.comparisons}
        assert names >= ({"DPO+EMA - DPO"}, {"A x B in DPO 2000", "swapped - DPO 5000"})[number]
