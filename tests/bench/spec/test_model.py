"""What an experiment is, and how a wrong one is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.assets import shipped_models
from bench.experiment.prepare import prepare
from bench.spec.matrix import build_matrix
from bench.spec.model import load_spec, override, parse_spec, shipped
from trainers.errors import UserError

SPECS = sorted((Path(str(shipped()["mini"])).parent).rglob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_shipped_spec_gives_a_matrix(path: Path) -> None:
    spec = load_spec(str(path))
    arms = len(spec.objectives) * 2 ** len(spec.components) + len(spec.controls)
    assert len(build_matrix(spec, "0" * 64, "1" * 64).arms) == arms
    if spec.base not in shipped_models():
        return  # The sets need its files: see the tests of the recipes.
    experiment = prepare(spec)
    sets = 1 + arms * len(spec.seeds) + 2 * spec.statistics.control_pairs
    assert len(experiment.sets) == sets
    scores = len(spec.rewards) + len(spec.measures)
    assert all(len(s.scores) == scores for s in experiment.sets)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_quick_section_is_smaller(path: Path) -> None:
    spec = load_spec(str(path))
    if not spec.quick:
        with pytest.raises(UserError, match="has no 'quick' section"):
            load_spec(str(path), quick=True)
        return
    quick = load_spec(str(path), quick=True)
    assert quick.name == f"{spec.name}-quick"

    def work(s: Any) -> int:
        return int(len(s.seeds) * (s.train["steps"] + (s.prompt_limit or 1000)))

    assert work(quick) < work(spec)


def test_the_shipped_specs_are_found_by_name() -> None:
    assert load_spec("mini").name == "mini"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"sedes": [0]}, r"sedes: unknown key, remove it or correct"),
    "unknown key below": ({"generate.step": 3}, r"generate\.step: unknown key"),
    "unknown key of a component": ({"components.A.sets": {}}, r"components\.A\.sets: unknown key"),
    "wrong type": ({"seeds": ["zero"]}, r"seeds\.0: .*integer.*\(got 'zero'\)"),
    "no seeds": ({"seeds": []}, r"seeds: .*at least 1"),
    "empty component": ({"components.A.set": {}}, r"components\.A\.set: .*at least 1"),
    "bad name": ({"name": "Not/good"}, r"name: .*pattern.*'Not/good'"),
    "primary": ({"primary": "beauty"}, r"primary 'beauty' is not among the rewards"),
    "twice a seed": ({"seeds": [3, 3]}, r"seeds and rewards must each be distinct"),
    "twice a reward": ({"rewards": ["oracle"] * 2}, r"rewards must each be distinct"),
    "alpha": ({"statistics": {"alpha": 0.5}}, r"statistics\.alpha: .*less than 0\.5"),
    "one A/A pair": ({"statistics": {"control_pairs": 1}}, r"statistics\.control_pairs: .*2"),
    "name twice": (
        {"controls": {"DPO": {"of": "DPO", "set": {"steps": 3}}}},
        r"an objective and a control are both called 'DPO'",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD)
def test_a_fault_is_named_in_one_line(
    tiny: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=f"(?s)^here: .*{expected}") as caught:
        parse_spec(override(tiny, changes), "here")
    assert "\n" not in str(caught.value)


def test_every_fault_is_named_at_once(tiny: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"prompts: .*cost\.image: .*extra: unknown key"):
        parse_spec({**tiny, "prompts": 3, "cost": {**tiny["cost"], "image": 0}, "extra": 1}, "x")


def test_a_missing_key_is_named(tiny: dict[str, Any]) -> None:
    del tiny["train"]
    with pytest.raises(UserError, match=r"^here: train: Field required"):
        parse_spec(tiny, "here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", r"expected YAML, got .*line 1"),
        ("- a\n- b\n", r"expected keys such as name, train and prompts, got list$"),
        ("", r"expected keys such as name, train and prompts, got None"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        load_spec(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_spec_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no spec 'mini2': did you mean 'mini'\? .*one of .*mini"):
        load_spec("mini2")


def test_quick_needs_a_section(
    tiny: dict[str, Any], write_spec: Callable[[dict[str, Any]], str]
) -> None:
    with pytest.raises(UserError, match=r"has no 'quick' section: run it without --quick"):
        load_spec(write_spec(tiny), quick=True)


def test_quick_replaces_dotted_keys(
    tiny: dict[str, Any], write_spec: Callable[[dict[str, Any]], str]
) -> None:
    tiny["quick"] = {"train.steps": 1, "generate": {"steps": 1}}
    spec = load_spec(write_spec(tiny), quick=True)
    assert spec.name == "tiny-quick"
    assert spec.train == {**tiny["train"], "steps": 1}
    assert spec.generate.guidance == 7.5  # The section was replaced whole.


def test_a_misspelt_quick_key_is_refused(
    tiny: dict[str, Any], write_spec: Callable[[dict[str, Any]], str]
) -> None:
    tiny["quick"] = {"prompt_limits": 1}
    with pytest.raises(UserError, match="prompt_limits: unknown key"):
        load_spec(write_spec(tiny), quick=True)


def test_seeds_are_replaced_after_quick(
    tiny: dict[str, Any], write_spec: Callable[[dict[str, Any]], str]
) -> None:
    tiny["quick"] = {"seeds": [8]}
    path = write_spec(tiny)
    assert load_spec(path, quick=True).seeds == (8,)
    assert load_spec(path, quick=True, seeds=(5, 6)).seeds == (5, 6)
    assert load_spec(path, seeds=(4,)).seeds == (4,)
    with pytest.raises(UserError, match="seeds"):
        load_spec(path, seeds=())


def test_override_leaves_its_input_alone() -> None:
    values = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    result = override(values, {"a.b.c": 9, "e": 4, "f": 5})
    assert result == {"a": {"b": {"c": 9, "d": 2}}, "e": 4, "f": 5}
    assert values == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


def test_override_replaces_a_mapping_whole() -> None:
    values = {"reference": {"name": "hard-copy", "tau": 16}}
    assert override(values, {"reference": {"name": "frozen"}}) == {"reference": {"name": "frozen"}}


def test_override_begins_a_section_that_is_not_there() -> None:
    assert override({"ema": None}, {"data.swap_labels": True, "ema.decay": 0.9}) == {
        "data": {"swap_labels": True}, "ema": {"decay": 0.9},
    }  # fmt: skip


@pytest.mark.parametrize("key", ["steps.x", "optimizer.lr.x"])
def test_override_refuses_a_path_through_a_value(tiny: dict[str, Any], key: str) -> None:
    last = ".".join(key.split(".")[-2:])
    with pytest.raises(UserError, match=f"^cannot set {re.escape(repr(last))}: there is no sect"):
        override(tiny["train"], {key: 1})


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        ("objectives", {"DPO": {}, "soft": {"objective.betta": 3}}, r"arm 'soft'.*betta: unknown"),
        ("objectives", {"DPO": {"objective.name": "dop"}}, r"arm 'DPO'.*did you mean 'dpo'\?"),
        ("objectives", {"DPO": {"stepps": 3}}, r"arm 'DPO'.*stepps: unknown key"),
        ("objectives", {"DPO": {"steps.x": 3}}, r"arm 'DPO'.*cannot set 'steps.x'"),
        (
            "objectives",
            {"DPO": {"optimizer.lr": 0}},
            r"arm 'DPO'.*optimizer 'adamw': lr: .*greater than 0",
        ),
        (
            "controls",
            {"odd": {"of": "DPO", "set": {"timesteps.law": {"name": "discounted", "gamma": 2}}}},
            r"arm 'odd'.*gamma: .*less than or equal to 1",
        ),
    ],
)
def test_a_bad_setting_names_its_arm(
    tiny: dict[str, Any], where: str, value: dict[str, Any], expected: str
) -> None:
    spec = parse_spec({**tiny, where: value}, "here")
    with pytest.raises(UserError, match=rf"^spec 'tiny', {expected}") as caught:
        build_matrix(spec, "0" * 64, "1" * 64)
    assert "\n" not in str(caught.value)


def test_a_spec_extends_another(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: mini\nname: child\ntrain.steps: 1\ngenerate: {steps: 1}\n")
    mini, spec = load_spec("mini"), load_spec(str(child))
    assert spec.name == "child"
    assert spec.train == {**mini.train, "steps": 1}
    assert spec.generate.guidance == 7.5  # The section was replaced whole.
    assert spec.components == mini.components


def test_what_it_extends_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is relative to the file that names it, whatever the working directory."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "parent.yaml").write_text("extends: mini\nname: parent\n")
    (tmp_path / "specs" / "child.yaml").write_text("extends: parent.yaml\ntrain.steps: 1\n")
    monkeypatch.chdir(tmp_path)
    assert load_spec("specs/child.yaml").name == "parent"
    (tmp_path / "specs" / "orphan.yaml").write_text("extends: nobody.yaml\n")
    with pytest.raises(UserError, match=r"^specs/orphan\.yaml: no spec 'nobody\.yaml'"):
        load_spec("specs/orphan.yaml")


def test_a_fault_in_what_is_changed_names_the_file(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: mini\ntrain.steps.x: 1\n")
    with pytest.raises(UserError, match=rf"^{re.escape(str(child))}: cannot set 'steps\.x'"):
        load_spec(str(child))


@pytest.mark.parametrize("parent", ["child.yaml", "other.yaml", "[mini]"])
def test_a_spec_that_extends_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("child.yaml").write_text(f"extends: {parent}\n")
    Path("other.yaml").write_text("extends: child.yaml\n")
    with pytest.raises(UserError, match=r"\.yaml: 'extends' must name another spec"):
        load_spec("child.yaml")
