"""Trials: which settings are tried for which arm, and that they never see what is judged by."""

from typing import Any

import pytest

from bench.experiment.prepare import prepare
from bench.spec.matrix import build_matrix
from bench.spec.model import Spec, parse_spec
from bench.spec.tuning import trials, trials_spec
from trainers.errors import UserError

BETAS = {"objective.beta": [100, 300, 1000]}


@pytest.fixture
def tuned(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["tuning"] = {"prompts": "mini-test", "prompt_limit": 4, "seeds": [7], "space": BETAS}
    return tiny


def parsed(raw: dict[str, Any]) -> Spec:
    return parse_spec(raw, "here")


def test_every_arm_is_given_each_point_of_the_space(tuned: dict[str, Any]) -> None:
    found = trials(parsed(tuned))
    assert [(t.arm, t.point["objective.beta"]) for t in found] == [
        (arm, beta) for arm in ("DPO", "DPO+A", "DPO+B", "DPO+A+B") for beta in (100, 300, 1000)
    ]


def test_a_trial_is_the_arm_with_the_point_and_nothing_else(tuned: dict[str, Any]) -> None:
    spec = parsed(tuned)
    here = build_matrix(spec, "0" * 64, "1" * 64)
    there = build_matrix(trials_spec(spec), "0" * 64, "1" * 64)
    tried = {arm.name: arm.configs[7] for arm in there.arms}
    for arm in here.arms:
        for beta in (100, 300, 1000):
            own = arm.configs[0].model_copy(
                update={"seed": 7, "objective": arm.configs[0].objective.model_copy(
                    update={"beta": float(beta)})}
            )  # fmt: skip
            assert tried[f"{arm.name} with objective.beta {beta}"].run_id() == own.run_id()


def test_trials_are_judged_by_the_primary_reward_on_prompts_of_their_own(
    tuned: dict[str, Any],
) -> None:
    tuned["rewards"] = ["mini-clip", "oracle"]
    tuned["generate"] = {"steps": 2, "images_per_prompt": 2}
    tuned["measures"] = ["diversity"]
    made = trials_spec(parsed(tuned))
    assert made.measures == ()
    assert (made.name, made.rewards, made.prompts, made.seeds, made.tuning) == (
        "tiny-tuning", ("oracle",), "mini-test", (7,), None,
    )  # fmt: skip
    trying, judging = prepare(made), prepare(parsed(tuned))
    seen = {prompt for _, prompt in trying.prompts.items}
    assert len(seen) == 4
    assert not seen & {prompt for _, prompt in judging.prompts.items}
    runs = [{c.run_id() for a in e.matrix.arms for c in a.configs.values()}
            for e in (trying, judging)]  # fmt: skip
    assert not runs[0] & runs[1]


def test_the_space_of_an_arm_comes_before_that_of_its_objective_and_of_all(
    tuned: dict[str, Any],
) -> None:
    tuned["objectives"] = {"DPO": {}, "SFT": {"objective": {"name": "sft"}}}
    del tuned["components"]["B"]
    tuned["tuning"] |= {
        "space": {"optimizer.lr": [1e-4, 2e-4]},
        "spaces": {"DPO": {"objective.beta": [10, 20]}, "DPO+A": {"reference.tau": [1, 2]}},
    }
    by_arm: dict[str, list[Any]] = {}
    for trial in trials(parsed(tuned)):
        by_arm.setdefault(trial.arm, []).append(trial.point)
    assert by_arm == {
        "DPO": [{"objective.beta": 10}, {"objective.beta": 20}],
        "DPO+A": [{"reference.tau": 1}, {"reference.tau": 2}],
        "SFT": [{"optimizer.lr": 1e-4}, {"optimizer.lr": 2e-4}],
        "SFT+A": [{"optimizer.lr": 1e-4}, {"optimizer.lr": 2e-4}],
    }


def test_trials_are_drawn_from_larger_spaces_as_many_for_each_arm(tuned: dict[str, Any]) -> None:
    tuned["tuning"] |= {
        "trials": 3,
        "space": {"objective.beta": [1, 2, 3, 4], "optimizer.lr": [1e-4, 1e-3]},
        "spaces": {"DPO+A": {"reference.tau": [1, 2, 3]}},
    }
    found = trials(parsed(tuned))
    points = {arm: [t.point for t in found if t.arm == arm] for arm in ("DPO", "DPO+A", "DPO+B")}
    assert [len(own) for own in points.values()] == [3, 3, 3]
    assert points["DPO"] == points["DPO+B"], "equal spaces, equal points"
    assert found == trials(parsed(tuned))


def test_named_arms_alone_are_tuned_controls_among_them(tuned: dict[str, Any]) -> None:
    tuned["controls"] = {"fast": {"of": "DPO", "set": {"optimizer.lr": 1e-3}}}
    tuned["tuning"]["arms"] = ["DPO+A", "fast"]
    assert {trial.arm for trial in trials(parsed(tuned))} == {"DPO+A", "fast"}


def test_tuned_arms_are_compared_as_the_others_are(tuned: dict[str, Any]) -> None:
    tuned["comparisons"] = ["DPO tuned - DPO"]
    spec = parsed(tuned)
    names = [c.name for c in build_matrix(spec, "0" * 64, "1" * 64).comparisons]
    chosen = {t.arm: t.point for t in trials(spec) if t.point["objective.beta"] == 300}
    matrix = build_matrix(spec, "0" * 64, "1" * 64, chosen)
    assert [a.name for a in matrix.arms[4:]] == [
        "DPO tuned", "DPO+A tuned", "DPO+B tuned", "DPO+A+B tuned",
    ]  # fmt: skip
    assert [c.name for c in matrix.comparisons] == [
        *names,
        "DPO tuned - base", "DPO+A tuned - DPO tuned", "DPO+B tuned - DPO tuned",
        "DPO+A+B tuned - DPO+A tuned", "DPO+A+B tuned - DPO+B tuned", "DPO+A+B tuned - DPO tuned",
        "DPO tuned - DPO",
    ]  # fmt: skip
    assert matrix.comparisons[7].question == "each at its best: does A help DPO?"


def test_what_was_chosen_may_be_what_the_spec_has(tuned: dict[str, Any]) -> None:
    chosen = {"DPO": {"objective.beta": 5000}, "DPO+A": {"objective.beta": 100}}
    matrix = build_matrix(parsed(tuned), "0" * 64, "1" * 64, chosen)
    assert matrix.twins() == {"DPO tuned": "DPO"}
    names = [c.name for c in matrix.comparisons]
    assert {"DPO tuned - base", "DPO+A tuned - DPO tuned"} <= {*names}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompts": "mini-dev"}, "4 prompts of tuning.prompts are prompts of the experiment"),
        ({"seeds": [1, 7]}, "tuning and the experiment share the training seed 1"),
        ({"space": {}}, "nothing is tuned of 'DPO'"),
        ({"space": {"objective.beta": []}}, "has no values for 'objective.beta'"),
        ({"spaces": {"DPO+A": {"reference.tau": [1, 2]}}}, "'DPO+A' has 2, 'DPO' 3"),
        ({"space": {"objective.beta": [3, 3]}}, "has a value of 'objective.beta' twice"),
        ({"space": {"seed": [3, 4]}}, "train.seed: expected no such key here: give 'seeds'"),
        ({"spaces": {"DPQ": BETAS}}, "tuning.spaces names 'DPQ'"),
        ({"arms": ["DPO+Z"]}, "tuning.arms names an unknown arm 'DPO+Z'"),
        ({"space": {"objective.betta": [1]}}, "objective.betta"),
        ({"space": {"optimizer.lr": ["fast"]}}, "lr"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_runs(
    tuned: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    tuned["tuning"] |= change
    with pytest.raises(UserError) as caught:
        prepare(trials_spec(parsed(tuned)))
    assert told in str(caught.value)
