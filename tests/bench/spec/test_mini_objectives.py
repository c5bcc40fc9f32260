"""The shipped experiment with every objective: what it holds, and which arms are one run."""

from bench.estimate.plan import budget
from bench.spec.matrix import arm_name, build_matrix
from bench.spec.model import load_spec
from trainers.objectives import OBJECTIVES

FREE = ("SFT", "CSFT", "MaPO", "SimPO")
"""Those that look at no reference."""


def test_every_objective_alone_and_with_each_component() -> None:
    spec = load_spec("mini-objectives")
    matrix = build_matrix(spec, "0" * 64, "1" * 64)
    own = [
        name for name in OBJECTIVES.names() if OBJECTIVES.get(name).__module__[:9] == "trainers."
    ]
    alone = {arm.name: arm for arm in matrix.arms if not arm.components}
    assert sorted(a.configs[0].objective.name for a in alone.values()) == sorted(own)
    parts = ((), ("A",), ("B",), ("A", "B"))
    assert [arm.name for arm in matrix.arms] == [arm_name(o, p) for o in alone for p in parts]


def test_a_reference_that_nothing_looks_at_makes_no_other_run() -> None:
    matrix = build_matrix(load_spec("mini-objectives"), "0" * 64, "1" * 64)
    expected = {f"{name}+A": name for name in FREE} | {f"{name}+A+B": f"{name}+B" for name in FREE}
    assert matrix.twins() == expected
    declared = {comparison.name for comparison in matrix.comparisons}
    assert "KTO+A - KTO" in declared
    assert "MaPO+B - MaPO" in declared
    assert not {"MaPO+A - MaPO", "MaPO+A+B - MaPO+B"} & declared


def test_a_plan_counts_equal_runs_once() -> None:
    """64 arms, 8 of them runs of others, with 2 seeds; besides, base and two controls by pairs."""
    plan = budget(load_spec("mini-objectives", quick=True))
    assert (plan["runs"], plan["optimiser_steps"]) == (56 * 2, 56 * 2 * 4)
    assert plan["images"] == 4 * (56 * 2 + 1 + 2 * 2)
    memory = plan["training_gib"]
    # DPO takes its reference's errors from a stage; DSPO looks at what the reference predicts.
    assert memory["SFT"]["pretrained"] == memory["DPO"]["pretrained"] == 0
    assert memory["DSPO"]["pretrained"] > 0
    assert memory["KTO"]["activations"] < memory["DPO"]["activations"]
    assert memory["DPO+A"]["reference"] > 0 == memory["DPO"]["reference"]
