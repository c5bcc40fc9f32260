"""Two results or arms: what differs, and whether scores do, as closely as they can be compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats as scipy

from bench.cli import run
from bench.results.compare import Compared, compare, open_side
from bench.results.files import write_results
from bench.results.protocol import Protocol
from bench.stats import crossed_interval, unpaired
from trainers.errors import UserError

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
COMMITTED = Path(__file__).parents[3] / "results" / "first-world"
EFFECTS = {"DPO": 0.25, "DPO+A": 0.375}


@pytest.fixture
def write(
    tmp_path: Path, make_protocol: MakeProtocol, make_scores: MakeScores
) -> Callable[..., str]:
    def made(
        name: str,
        changes: dict[str, Any] | None = None,
        effects: dict[str, float] | None = None,
        edit: Callable[[pd.DataFrame], pd.DataFrame] = lambda scores: scores,
    ) -> str:
        protocol = make_protocol(changes)
        scores = edit(make_scores(protocol, effects or EFFECTS, noise=0.1))
        table = pa.Table.from_pandas(scores, preserve_index=False)
        write_results(tmp_path / name, protocol, table, None)
        return str(tmp_path / name)

    return made


def of(first: str, second: str) -> dict[tuple[str, str], Compared]:
    found = compare(open_side(first), open_side(second))
    return {(each.arm, each.reward): each for each in found.scores}


def test_a_result_against_itself_differs_in_nothing(write: Callable[..., str]) -> None:
    one = write("one")
    found = compare(open_side(one), open_side(one))
    assert found.differences == () and found.alone == ()
    assert found.same_images == found.images == 7 * 20
    assert {each.word for each in found.scores} == {"identical"}
    assert [each.how for each in found.scores] == ["paired"] * 6


def test_arms_are_compared_and_signed_for_the_second(write: Callable[..., str]) -> None:
    """An effect of 0.125 on scores; ``flaws`` is better when lower, so that it is worse there."""
    one = write("one")
    found = of(f"{one}:DPO", f"{one}:DPO+A")
    truth, flaws = found["DPO+A - DPO", "truth"], found["DPO+A - DPO", "flaws"]
    assert (truth.word, flaws.word) == ("better", "worse")
    assert truth.difference is not None and truth.difference.low < 0.125 < truth.difference.high
    assert of(f"{one}:DPO+A", f"{one}:DPO")["DPO - DPO+A", "truth"].word == "worse"
    assert of(f"{one}:base", f"{one}:DPO")["DPO - base", "truth"].word == "better"


def test_settings_versions_and_files_of_two_arms() -> None:
    """Component A of the committed evidence is its reference rule, and nothing else."""
    found = compare(open_side(f"{COMMITTED}:DPO"), open_side(f"{COMMITTED}:DPO+A"))
    assert {(d.what, d.key.rpartition(".")[0]) for d in found.differences} == {
        ("settings", "train.reference")
    }
    (tau,) = (d for d in found.differences if d.key == "train.reference.tau")
    assert (tau.first, tau.second) == ("not set", "16")
    primary = found.scores[0]
    assert primary.reward == "oracle" and primary.word == "no difference shown"
    assert primary.wins is not None and primary.wins.wins == 561


def test_two_results_differ_in_what_was_changed(write: Callable[..., str]) -> None:
    one = write("one")
    other = write("two", {"images.guidance": 5.0, "bench": "1.2.4"}, {"DPO": 0.25})
    found = compare(open_side(one), open_side(other))
    told = {(d.what, d.key, d.first, d.second) for d in found.differences}
    assert {("settings", "generate.guidance", "7.5", "5.0")} < told
    assert {("versions", "dpo-bench", '"1.2.3"', '"1.2.4"')} < told
    assert {d.key for d in found.differences if d.what == "files"} == {"scores.parquet"}


def test_images_made_otherwise_are_paired_by_prompt(write: Callable[..., str]) -> None:
    one, other = write("one"), write("two", {"images.guidance": 5.0, "images.per_prompt": 2})
    for each in of(one, other).values():
        assert (each.how, each.why) == ("by prompt", "images were made otherwise")
        assert each.wins is None and each.difference is not None


def test_prompts_that_both_have_are_paired(
    write: Callable[..., str], make_protocol: MakeProtocol
) -> None:
    ids = make_protocol().prompts.ids
    one, other = write("one"), write("two", {"prompts.ids": (*ids[5:], "p98", "p99")})
    found = of(one, other)["DPO", "truth"]
    assert found.how == "paired"
    assert found.difference is not None and vars(found.difference)["n_prompts"] == 15


def test_other_prompts_are_not_paired(write: Callable[..., str]) -> None:
    """Welch's interval of the two means, each by its own crossed interval."""
    one = write("one")
    other = write("two", {"prompts.sha256": "f" * 64}, {"DPO": 5.25, "DPO+A": 0.375})
    found = of(one, other)
    assert {each.how for each in found.values()} == {"unpaired"}
    assert found["DPO", "truth"].word == "better"
    assert found["DPO+A", "truth"].word == "no difference shown"


def test_unpaired_is_welch_where_seeds_make_no_noise() -> None:
    """With a single run the crossed interval is Student's over prompts: scipy's Welch then."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, (1, 30)), rng.normal(0.5, 2, (1, 50))
    found = unpaired(crossed_interval(first), crossed_interval(second))
    welch = scipy.ttest_ind(second[0], first[0], equal_var=False)
    low, high = welch.confidence_interval()
    assert found.p_value == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    same = crossed_interval(np.ones((1, 5)))
    assert unpaired(same, same).p_value == 1.0
    assert unpaired(same, crossed_interval(np.zeros((1, 5)))).p_value == 0.0


def test_other_signatures_are_not_compared(write: Callable[..., str]) -> None:
    rewards = (
        {"name": "truth", "direction": "higher", "signature": "truth|2"},
        {"name": "beauty", "direction": "higher", "signature": "beauty|1"},
    )
    found = compare(open_side(write("one")), open_side(write("two", {"rewards": rewards})))
    assert {(each.reward, each.how, each.word) for each in found.scores} == {
        ("truth", "not compared", "-")
    }
    assert found.scores[0].why == "truth|1 and truth|2"
    assert found.alone == ("beauty", "flaws")


def with_seeds(protocol: Protocol, *seeds: int) -> dict[str, Any]:
    base, *arms = protocol.arms
    return {"arms": (base, *(arm.model_copy(update={"seeds": seeds}) for arm in arms))}


def test_seeds_are_paired_by_number(write: Callable[..., str], make_protocol: MakeProtocol) -> None:
    one = write("one")
    same = of(one, write("two", with_seeds(make_protocol(), 2, 0, 1)))["DPO", "truth"]
    assert same.why == "" and same.seeds == 3
    some = of(one, write("three", with_seeds(make_protocol(), 2, 1, 5)))["DPO", "truth"]
    assert some.why == "seeds of both sides only" and some.word == "conditional"
    none = of(one, write("four", with_seeds(make_protocol(), 7, 8, 9, 10)))["DPO", "truth"]
    assert none.why == "training seeds are others" and none.seeds == 3


def test_one_run_decides_nothing(write: Callable[..., str], make_protocol: MakeProtocol) -> None:
    one = write("one", with_seeds(make_protocol(), 0))
    assert of(f"{one}:base", f"{one}:DPO")["DPO - base", "truth"].word == "conditional"


def test_scores_that_are_not_there_are_not_compared(write: Callable[..., str]) -> None:
    one = write("one", edit=lambda scores: scores[scores["arm"] != "DPO+A"])
    found = of(f"{one}:DPO", f"{one}:DPO+A")["DPO+A - DPO", "truth"]
    assert (found.how, found.why, found.difference) == ("not compared", "too few scores", None)


def test_what_is_no_side_is_one_line(write: Callable[..., str], tmp_path: Path) -> None:
    one = write("a:b")
    assert open_side(one).arm is None
    assert open_side(f"{one}:DPO+A").arm == "DPO+A"
    for texts, why in (
        ((one, f"{one}:DPO"), "expected two results or two arms"),
        ((f"{one}:X", f"{one}:DPO"), "has no arm 'X': give one of 'base', 'DPO', 'DPO\\+A'"),
        ((str(tmp_path / "none"), one), "holds no scores.parquet"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            compare(*map(open_side, texts))
        assert "\n" not in str(caught.value)


def test_the_command_prints_tables_and_json(
    write: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    one = write("one")
    assert run(["compare", f"{one}:DPO", f"{one}:DPO+A"]) == 0
    told = capsys.readouterr().out
    assert "DPO+A - DPO  truth" in told and "  better  " in told
    assert "No versions differ, as far as they are recorded." in told
    assert "60 of 60 images" in told
    assert run(["compare", one, one, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["scores"][0]["word"] == "identical" and data["differences"] == []
    assert run(["compare", one, f"{one}:DPO"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
