"""From a spec to arms, comparisons and stages."""

from typing import Any

import pytest

from bench.experiment.prepare import prepare
from bench.spec.matrix import Matrix, build_matrix
from bench.spec.model import parse_spec
from trainers.errors import UserError

C = {"label": "dropout", "set": {"caption_dropout": 0.1}}


def matrix(raw: dict[str, Any]) -> Matrix:
    return build_matrix(parse_spec(raw, "here"), "0" * 64, "1" * 64)


def pairs(found: Matrix) -> list[tuple[str, str]]:
    assert [c.name for c in found.comparisons] == [
        f"{on} - {off}" for c in found.comparisons for on, off in zip(c.on, c.off, strict=True)
    ]
    return [(c.on[0], c.off[0]) for c in found.comparisons]


def test_two_components_give_four_arms_with_their_settings(tiny: dict[str, Any]) -> None:
    found = matrix(tiny)
    assert [a.name for a in found.arms] == ["DPO", "DPO+A", "DPO+B", "DPO+A+B"]
    assert [a.components for a in found.arms] == [(), ("A",), ("B",), ("A", "B")]
    settings = {
        a.name: (a.configs[0].reference.name, a.configs[0].timesteps.law.name) for a in found.arms
    }
    assert settings == {
        "DPO": ("frozen", "uniform"),
        "DPO+A": ("hard-copy", "uniform"),
        "DPO+B": ("frozen", "discounted"),
        "DPO+A+B": ("hard-copy", "discounted"),
    }
    for arm in found.arms:
        assert {seed: config.seed for seed, config in arm.configs.items()} == {0: 0, 1: 1}
    assert len({c.run_id() for a in found.arms for c in a.configs.values()}) == 8


def test_two_components_are_compared_as_declared(tiny: dict[str, Any]) -> None:
    assert pairs(matrix(tiny)) == [
        ("DPO", "base"),
        ("DPO+A", "DPO"),
        ("DPO+B", "DPO"),
        ("DPO+A+B", "DPO+A"),
        ("DPO+A+B", "DPO+B"),
        ("DPO+A+B", "DPO"),
    ]


def test_three_components(tiny: dict[str, Any]) -> None:
    tiny["components"]["C"] = C
    found = matrix(tiny)
    assert [a.name for a in found.arms] == [
        "DPO", "DPO+A", "DPO+B", "DPO+C", "DPO+A+B", "DPO+A+C", "DPO+B+C", "DPO+A+B+C",
    ]  # fmt: skip
    assert pairs(found) == [
        ("DPO", "base"),
        ("DPO+A", "DPO"), ("DPO+B", "DPO"), ("DPO+C", "DPO"),
        ("DPO+A+B", "DPO+A"), ("DPO+A+C", "DPO+A"),
        ("DPO+A+B", "DPO+B"), ("DPO+B+C", "DPO+B"),
        ("DPO+A+C", "DPO+C"), ("DPO+B+C", "DPO+C"),
        ("DPO+A+B+C", "DPO+A+B"), ("DPO+A+B+C", "DPO+A+C"), ("DPO+A+B+C", "DPO+B+C"),
        ("DPO+A+B+C", "DPO"),
    ]  # fmt: skip
    assert found.comparisons[1].question == "does A help DPO?"
    assert found.comparisons[-1].question == "do A and B and C help DPO?"


def test_two_objectives_each_have_their_arms_and_comparisons(tiny: dict[str, Any]) -> None:
    tiny["objectives"] = {"DPO": {}, "SFT": {"objective": {"name": "sft"}}}
    del tiny["components"]["B"]
    found = matrix(tiny)
    assert [a.name for a in found.arms] == ["DPO", "DPO+A", "SFT", "SFT+A"]
    assert pairs(found) == [
        ("DPO", "base"), ("DPO+A", "DPO"), ("SFT", "base"), ("SFT", "DPO"),
    ]  # fmt: skip
    assert [a.configs[1].objective.name for a in found.arms] == ["dpo", "dpo", "sft", "sft"]


def test_a_component_that_an_objective_makes_no_use_of_is_no_other_run(
    tiny: dict[str, Any],
) -> None:
    """Supervised fine-tuning looks at no reference: with A it is the run without, and no test."""
    tiny["objectives"] = {"SFT": {"objective": {"name": "sft"}}}
    found = matrix(tiny)
    assert found.twins() == {"SFT+A": "SFT", "SFT+A+B": "SFT+B"}
    assert pairs(found) == [
        ("SFT", "base"), ("SFT+B", "SFT"), ("SFT+A+B", "SFT+A"), ("SFT+A+B", "SFT"),
    ]  # fmt: skip
    assert found.arms[1].configs[0].reference.name == "frozen"


def test_further_comparisons_are_of_the_family(tiny: dict[str, Any]) -> None:
    tiny["comparisons"] = [
        "DPO+A - base",
        {"interaction": ["A", "B"], "of": "DPO"},
    ]
    *_, difference, interaction = matrix(tiny).comparisons
    assert (difference.name, difference.on, difference.off) == (
        "DPO+A - base", ("DPO+A",), ("base",),
    )  # fmt: skip
    assert (interaction.name, interaction.on, interaction.off) == (
        "A x B in DPO", ("DPO+A+B", "DPO"), ("DPO+A", "DPO+B"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DPO+C - DPO", r"'DPO\+C - DPO' names an unknown arm 'DPO\+C'"),
        ("DPO+A - DPO", r"'DPO\+A - DPO' is in the family already"),
        ({"interaction": ["A", "C"], "of": "DPO"}, "'A x C in DPO' names an unknown arm"),
        ("DPO+A", "'DPO\\+A - ' names an unknown arm ''"),
    ],
)
def test_a_further_comparison_must_be_one(
    tiny: dict[str, Any], change: str | dict[str, Any], told: str
) -> None:
    tiny["comparisons"] = [change]
    with pytest.raises(UserError, match=told):
        matrix(tiny)


def test_the_gain_is_declared(tiny: dict[str, Any]) -> None:
    assert matrix(tiny).gain == "DPO - base"
    tiny["statistics"] = {"equivalence": {"share": 0.1, "of": "DPO+A+B - DPO"}}
    assert matrix(tiny).gain == "DPO+A+B - DPO"
    tiny["statistics"] = {"equivalence": {"share": 0.1, "of": "DPO+A+B - base"}}
    with pytest.raises(UserError, match=r"no comparison 'DPO\+A\+B - base': expected one of DPO"):
        matrix(tiny)
    for wrong in ({}, {"share": 0.1, "bound": 0.1}, {"bound": 0.1, "of": "DPO - base"}):
        tiny["statistics"] = {"equivalence": wrong}
        with pytest.raises(UserError, match="give a share"):
            matrix(tiny)


def test_without_components_there_is_one_comparison(tiny: dict[str, Any]) -> None:
    tiny["components"] = {}
    assert pairs(matrix(tiny)) == [("DPO", "base")]


def test_a_control_starts_from_its_origin_and_comes_last(tiny: dict[str, Any]) -> None:
    tiny["controls"] = {
        "weaker": {"of": "DPO", "set": {"objective.beta": 1000}},
        "weaker-A": {"of": "DPO+A", "set": {"objective.beta": 1000}},
    }
    found = matrix(tiny)
    assert pairs(found)[-2:] == [("weaker", "DPO"), ("weaker-A", "DPO+A")]
    config = found.arms[-1].configs[1]
    assert config.objective.resolved()["beta"] == 1000
    assert config.reference.name == "hard-copy"


def test_a_control_that_replaces_a_slot_has_the_last_word(tiny: dict[str, Any]) -> None:
    """What its origin set in the slot it replaces is gone, be it whole or by a dotted key."""
    a = {"label": "A", "set": {"reference": {"name": "hard-copy"}, "reference.tau": 32}}
    tiny |= {
        "components": {"A": a},
        "controls": {
            "slow": {"of": "DPO+A", "set": {"reference": {"name": "hard-copy", "tau": 64}}},
            "plain": {"of": "DPO+A", "set": {"reference": {"name": "hard-copy"}}},
            "fast": {"of": "DPO+A", "set": {"reference.tau": 8}},
        },
    }
    arms = {arm.name: arm for arm in build_matrix(parse_spec(tiny, "tiny"), "0", "1").arms}
    taus = {
        name: arms[name].configs[0].reference.resolved()["tau"] for name in arms if name != "DPO"
    }
    assert taus == {"DPO+A": 32, "slow": 64, "plain": 16, "fast": 8}


def test_a_control_may_set_what_the_spec_leaves_at_its_default(tiny: dict[str, Any]) -> None:
    tiny["controls"] = {"swapped": {"of": "DPO", "set": {"data.swap_labels": True}}}
    arms = {arm.name: arm for arm in build_matrix(parse_spec(tiny, "tiny"), "0", "1").arms}
    assert arms["swapped"].configs[0].data.swap_labels
    assert not arms["DPO"].configs[0].data.swap_labels
    tiny["controls"] = {"typo": {"of": "DPO", "set": {"dta.swap_labels": True}}}
    with pytest.raises(UserError, match=r"arm 'typo': train\.dta: unknown key"):
        build_matrix(parse_spec(tiny, "tiny"), "0", "1")


def test_a_control_of_an_unknown_arm_is_refused(tiny: dict[str, Any]) -> None:
    tiny["controls"] = {"odd": {"of": "DPO+Z", "set": {"steps": 3}}}
    with pytest.raises(UserError, match=r"control 'odd' starts from .* 'DPO\+Z': known are DPO, "):
        matrix(tiny)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"reference": {"name": "frozen"}}, {"reference": {"name": "ema"}}),
        ({"reference": {"name": "ema"}}, {"reference.decay": 0.9}),
        ({"optimizer.lr": 1e-3}, {"optimizer": {"lr": 1e-4}}),
    ],
)
def test_components_that_set_the_same_key_are_refused(
    tiny: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    tiny["components"] = {"A": {"label": "a", "set": first}, "B": {"label": "b", "set": second}}
    key = next(iter(first))
    with pytest.raises(UserError, match=f"components 'A' and 'B' both set '{key}'"):
        matrix(tiny)


def test_components_that_set_neighbouring_keys_are_not(tiny: dict[str, Any]) -> None:
    tiny["components"] = {
        "A": {"label": "a", "set": {"optimizer.lr": 1e-3}},
        "B": {"label": "b", "set": {"optimizer.lr_": 1}},
    }
    with pytest.raises(UserError, match="lr_: unknown key"):
        matrix(tiny)


@pytest.mark.parametrize("name", ["base", "A/A", "A/A'", "DPO+A"])
def test_a_name_that_is_taken_is_refused(tiny: dict[str, Any], name: str) -> None:
    tiny["controls"] = {name: {"of": "DPO", "set": {"steps": 3}}}
    with pytest.raises(UserError, match="two arms would be called"):
        matrix(tiny)


def test_equal_configurations_are_one_run(tiny: dict[str, Any]) -> None:
    alone = prepare(parse_spec(tiny, "here"))
    tiny["controls"] = {"same": {"of": "DPO", "set": {"objective.beta": 5000}}}
    both = prepare(parse_spec(tiny, "here"))
    assert [s.id for s in both.stages()] == [s.id for s in alone.stages()]
    assert len(both.sets) == len(alone.sets) + 2
    of = {(s.arm, s.seed): s for s in both.sets}
    assert [s.id for s in of["same", 0].scores] == [s.id for s in of["DPO", 0].scores]
    tiny["controls"] = {"other": {"of": "DPO", "set": {"objective.beta": 4999}}}
    assert len(prepare(parse_spec(tiny, "here")).stages()) == len(alone.stages()) + 2 * 3


def test_stages_come_after_what_they_need(tiny: dict[str, Any]) -> None:
    stages = prepare(parse_spec(tiny, "here")).stages()
    seen: set[str] = set()
    for stage in stages:
        assert {need.id for need in stage.needs} <= seen
        seen.add(stage.id)
    kinds = [s.kind for s in stages]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {"images": 15, "scores": 15, "encode": 1, "train": 8}


def test_the_control_pairs_have_noises_of_their_own(tiny: dict[str, Any]) -> None:
    tiny["generate"]["images_per_prompt"] = 2
    experiment = prepare(parse_spec(tiny, "here"))
    first = {(s.arm, s.seed): s.images.first_index for s in experiment.sets}
    control = [index for (arm, _), index in first.items() if arm.startswith("A/A")]
    assert sorted(control) == [2, 4, 6, 8, 10, 12]
    assert {i for (arm, _), i in first.items() if not arm.startswith("A/A")} == {0}
    assert all(s.images.train is None for s in experiment.sets if s.arm.startswith("A/A"))


def test_a_rival_starts_from_the_first_objective_and_is_compared_with_all_of_it(
    tiny: dict[str, Any],
) -> None:
    tiny["controls"] = {"weak": {"set": {"objective.beta": 10}}}
    found = matrix(tiny)
    assert found.arms[-1].configs[0].objective.model_dump()["beta"] == 10
    assert pairs(found)[-3:] == [("weak", "DPO"), ("weak", "base"), ("DPO+A+B", "weak")]
    tiny["objectives"] = {"Other": {}}
    assert pairs(matrix(tiny))[-1] == ("Other+A+B", "weak")
    tiny["components"] = {}
    assert pairs(matrix(tiny))[-2:] == [("weak", "Other"), ("weak", "base")]


@pytest.mark.parametrize(
    ("key", "place"),
    [("seed", "seeds"), ("backbone", "backbone"), ("base_sha256", "base"), ("data_sha256", "data")],
)
def test_what_a_spec_gives_elsewhere_is_refused_in_train(
    tiny: dict[str, Any], key: str, place: str
) -> None:
    tiny["controls"] = {"other": {"of": "DPO", "set": {key: "3"}}}
    with pytest.raises(UserError, match=rf"arm 'other': train\.{key}: .* give '{place}'"):
        matrix(tiny)
