"""What a bound needs: the functions of ``bench.stats`` asked about the right matrices."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import stats
from bench.cli import run
from bench.results.analysis import differences
from bench.results.power import needs
from bench.results.protocol import Protocol

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
EFFECTS = {"DPO": 0.25, "DPO+A": 0.27}


def test_a_share_is_asked_of_every_comparison_but_the_gain(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol()
    family = differences(make_scores(protocol, EFFECTS, noise=0.2), protocol)
    gain, d = family
    assert gain is not None
    assert d is not None
    found = needs(family, protocol, 0.8)
    assert [(need.comparison, need.kind) for need in found] == [
        ("DPO+A - DPO", "equivalence"), ("DPO+A - DPO", "difference"),
    ]  # fmt: skip
    assert [need.size for need in found] == [pytest.approx(0.2 * gain.mean())] * 2
    independent = max(1.0, stats.seed_noise([gain, d]).df / 2)
    question = stats.share_question(d, gain, 0.2, independent=independent)
    assert found[0].power == stats.power(question, 3, 20)
    assert found[0].prompts == stats.prompts_needed(question, 3)


def test_a_wider_bound_needs_less(make_protocol: MakeProtocol, make_scores: MakeScores) -> None:
    def prompts(bound: float) -> list[float]:
        declared = {"statistics.share": None, "statistics.bound": bound}
        protocol = make_protocol(declared)
        family = differences(make_scores(protocol, EFFECTS, noise=0.1), protocol)
        return [need.prompts or float("inf") for need in needs(family, protocol, 0.8)]

    narrow, wide = prompts(0.03), prompts(0.1)
    assert len(narrow) == 4
    assert all(more > less for more, less in zip(narrow, wide, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"statistics.share": None},
        {"arms": ({"name": "base", "seeds": (None,)}, {"name": "DPO", "seeds": (0,)},
                  {"name": "DPO+A", "seeds": (0,)})},
    ],
)  # fmt: skip
def test_without_a_bound_or_a_second_seed_nothing_can_be_said(
    make_protocol: MakeProtocol,
    make_scores: MakeScores,
    result_folder: Callable[..., Path],
    changes: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    protocol = make_protocol(changes)
    folder = result_folder(protocol, make_scores(protocol, EFFECTS, noise=0.1))
    assert run(["power", str(folder)]) == 1
    assert "expected two training seeds or more and a declared bound" in capsys.readouterr().err


def test_a_share_of_what_is_no_gain_is_refused(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol()
    scores = make_scores(protocol, {"DPO": -0.125}, noise=0.1)
    with pytest.raises(
        ValueError, match=r"20% of DPO - base, which is -0\.\d+ here: expected a gain"
    ):
        needs(differences(scores, protocol), protocol, 0.8)


def test_the_command_prints_what_is_needed(
    result_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = result_folder()
    assert run(["power", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [need["kind"] for need in found] == ["equivalence", "difference"]
    assert run(["power", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "80% power on truth" in shown
    assert f"to show that it is less than {found[0]['size']:.4g}" in shown
    assert run(["power", "mini", "--out", str(folder)]) == 1
    assert "holds no scores.parquet" in capsys.readouterr().err
