"""Leaderboards: what stands in one group, and what each row says of itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bench.results.analysis import analyse
from bench.results.board import Group, find_results, leaderboard
from bench.results.cost import training_cost
from bench.results.files import PROTOCOL, SCORES, read_manifest, read_results, write_results
from bench.results.gains import Hacking, Row
from bench.results.protocol import Mark, Protocol
from trainers.errors import UserError

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
COMMITTED = Path(__file__).parents[3] / "results"
EFFECTS = {"DPO": 0.25, "DPO+A": 0.375}


@pytest.fixture
def write(
    tmp_path: Path, make_protocol: MakeProtocol, make_scores: MakeScores
) -> Callable[..., Path]:
    """Write a result folder of a name, with keys of its protocol changed."""

    def made(
        name: str,
        changes: dict[str, Any] | None = None,
        effects: dict[str, float] | None = None,
        edit: Callable[[pd.DataFrame], pd.DataFrame] = lambda scores: scores,
    ) -> Path:
        protocol = make_protocol(changes)
        scores = edit(make_scores(protocol, EFFECTS if effects is None else effects, noise=0.1))
        table = pa.Table.from_pandas(scores, preserve_index=False)
        write_results(tmp_path / name, protocol, table, None)
        return tmp_path / name

    return made


def rows(group: Group) -> dict[str, Row]:
    return {row.arm: row for row in group.rows}


def only(*places: Path) -> Group:
    (group,) = leaderboard(find_results(places))
    return group


def test_gains_are_over_the_base_model_and_signed_so_that_positive_is_better(
    write: Callable[..., Path],
) -> None:
    """Effects of 0.25 and 0.375 raise the score; ``flaws`` is better when it is lower."""
    found = rows(only(write("one")))
    for arm, effect in EFFECTS.items():
        truth, flaws = (found[arm].standings[name] for name in ("truth", "flaws"))
        assert truth.gain is not None and flaws.gain is not None
        assert truth.gain.low < effect < truth.gain.high
        assert flaws.gain.low < -effect < flaws.gain.high
        assert truth.wins is not None and truth.wins.rate > 0.9
    base = found["base"]
    assert base.standings["truth"].gain is None and base.seeds == 0
    assert base.standings["truth"].rank == (3, 3)
    assert base.standings["flaws"].rank == (1, 1)
    assert [row.arm for row in only(write("one")).rows] == ["DPO+A", "DPO", "base"]


def test_wins_are_those_of_the_table(write: Callable[..., Path]) -> None:
    folder = write("one")
    table, found = read_results(folder), rows(only(folder))
    for arm in EFFECTS:
        assert found[arm].standings["truth"].wins == table.against_base[arm]
        mean = table.means[arm]["truth"]
        assert mean is not None and found[arm].standings["truth"].mean == mean.mean


def test_a_row_is_the_same_whoever_else_is_in_the_group(write: Callable[..., Path]) -> None:
    alone = rows(only(write("one")))
    group = only(write("one"), write("two", effects={"DPO": 2.0}))
    assert [s.name for s in group.sources] == ["one", "two"]
    for row in group.rows:
        if row.result == "one" and row.seeds:
            for reward, standing in row.standings.items():
                assert standing.gain == alone[row.arm].standings[reward].gain
                assert standing.wins == alone[row.arm].standings[reward].wins
    assert (group.rows[0].result, group.rows[0].arm) == ("two", "DPO")
    assert group.rows[0].standings["truth"].rank == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"images.guidance": 5.0},
        {"images.seed": 4},
        {"prompts.sha256": "f" * 64},
        {"prompts.ids": tuple(f"p{n:02d}" for n in range(19))},
        {"statistics.tie": 0.1},
        {"primary": "flaws"},
        {
            "rewards": (
                {"name": "truth", "direction": "higher", "signature": "truth|2"},
                {"name": "flaws", "direction": "lower", "signature": "flaws|1"},
            )
        },
    ],
)
def test_what_differs_is_never_in_one_group(
    write: Callable[..., Path], changes: dict[str, Any]
) -> None:
    groups = leaderboard(find_results([write("one"), write("two", changes)]))
    assert [[s.name for s in group.sources] for group in groups] in (
        [["one"], ["two"]],
        [["two"], ["one"]],
    )


def test_another_base_model_is_another_group(write: Callable[..., Path]) -> None:
    def other(scores: pd.DataFrame) -> pd.DataFrame:
        return scores.assign(run_id=scores["run_id"].replace("base", "another"))

    groups = leaderboard(find_results([write("one"), write("two", edit=other)]))
    assert [group.base_sha256 for group in groups] == ["another", "base"]


def test_the_order_of_rewards_makes_no_group(
    write: Callable[..., Path], make_protocol: MakeProtocol
) -> None:
    turned = tuple(reversed(make_protocol().rewards))
    assert len(leaderboard(find_results([write("one"), write("two", {"rewards": turned})]))) == 1


def test_too_little_has_no_rank_and_hides_nobody(write: Callable[..., Path]) -> None:
    def lose(scores: pd.DataFrame) -> pd.DataFrame:
        lost = scores["arm"].eq("DPO") & scores["prompt_id"].isin(["p00", "p01"])
        return scores[~lost]

    found = rows(only(write("one", edit=lose)))
    assert found["DPO"].standings["truth"].rank is None
    assert found["DPO"].standings["truth"].gain is not None
    assert found["DPO+A"].standings["truth"].rank == (1, 1)
    assert found["base"].standings["truth"].rank == (2, 2)


def test_an_arm_that_is_another_has_no_row(
    write: Callable[..., Path], make_protocol: MakeProtocol
) -> None:
    base, dpo, twin = make_protocol().arms
    group = only(write("one", {"arms": (base, dpo, twin.model_copy(update={"same_as": "DPO"}))}))
    assert [row.arm for row in group.rows] == ["DPO", "base"]
    assert group.sources[0].twins == {"DPO+A": "DPO"}


def test_scores_without_a_base_model_are_refused(write: Callable[..., Path]) -> None:
    folder = write("one", edit=lambda scores: scores[scores["arm"] != "base"])
    with pytest.raises(UserError, match="scores of 0 base models, and one is needed") as caught:
        leaderboard(find_results([folder]))
    assert "\n" not in str(caught.value)


MARKS = {"marks": (Mark(kind="same-source", datasets=("a",)),)}


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ({"truth": 0.5, "proxy": 0.5}, Hacking("no", ("proxy",), ("truth",))),
        ({"truth": 0.0, "proxy": 0.5}, Hacking("suspected", ("proxy",), ("truth",))),
        ({"truth": -0.5, "proxy": 0.5}, Hacking("seen", ("proxy",), ("truth",))),
        ({"truth": -0.5, "proxy": -0.5}, Hacking("no", (), ("truth",))),
    ],
)
def test_reward_hacking_is_a_marked_reward_that_rises_alone(
    write: Callable[..., Path], effects: dict[str, float], expected: Hacking
) -> None:
    """Noise of 0.1 over 3 seeds and 20 prompts tells an effect of 0.5 from 0 in any draw."""

    def shift(scores: pd.DataFrame) -> pd.DataFrame:
        trained = scores["arm"].eq("DPO")
        return scores.assign(score=scores["score"] + scores["reward"].map(effects) * trained)

    rewards = (
        {"name": "truth", "direction": "higher", "signature": "truth|1"},
        {"name": "proxy", "direction": "higher", "signature": "proxy|1", **MARKS},
    )
    found = rows(only(write("one", {"rewards": rewards}, {}, shift)))
    assert found["DPO"].hacking == expected
    assert found["base"].hacking is None


@pytest.mark.parametrize(
    ("signature", "judged"), [("oracle|rule|x", True), ("oracle|miniature|x", False)]
)
def test_the_oracle_judges_though_it_made_the_preferences(
    write: Callable[..., Path], signature: str, judged: bool
) -> None:
    rewards = (
        {"name": "truth", "direction": "higher", "signature": signature,
         "marks": ({"kind": "labelled"},)},
        {"name": "proxy", "direction": "higher", "signature": "proxy|1", **MARKS},
    )  # fmt: skip
    found = rows(only(write("one", {"rewards": rewards})))["DPO"].hacking
    assert (found is not None) == judged


def test_two_seeds_show_no_hacking(write: Callable[..., Path], make_protocol: MakeProtocol) -> None:
    base, *arms = make_protocol().arms
    rewards = (
        {"name": "truth", "direction": "higher", "signature": "truth|1"},
        {"name": "proxy", "direction": "higher", "signature": "proxy|1", **MARKS},
    )
    two = tuple(arm.model_copy(update={"seeds": (0, 1)}) for arm in arms)
    found = rows(only(write("one", {"arms": (base, *two), "rewards": rewards})))
    assert found["DPO"].hacking == Hacking("no", (), ("truth",))
    assert {row.standings["truth"].rank for row in found.values()} == {(1, 3)}


def test_seeds_are_paired_by_number_in_whatever_order_they_are_declared(
    write: Callable[..., Path], make_protocol: MakeProtocol
) -> None:
    base, *arms = make_protocol().arms
    turned = tuple(arm.model_copy(update={"seeds": (2, 0, 1)}) for arm in arms[1:])
    one = only(write("one"))
    two = only(write("two", {"arms": (base, arms[0], *turned)}))
    for arm in EFFECTS:
        assert rows(two)[arm].standings["truth"].rank == rows(one)[arm].standings["truth"].rank


def test_folders_are_found_once_and_named_apart(tmp_path: Path, write: Callable[..., Path]) -> None:
    one, two = write("a/one"), write("b/one")
    assert find_results([tmp_path / "a", one]) == {"one": one}
    assert find_results([tmp_path / "a", two]) == {str(one): one, str(two): two}
    with pytest.raises(UserError, match="is no result folder and holds none: give folders"):
        find_results([tmp_path])


@pytest.mark.parametrize("name", [SCORES, PROTOCOL])
def test_a_damaged_folder_is_one_line(write: Callable[..., Path], name: str) -> None:
    folder = write("one")
    (folder / name).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=f"{name} is damaged") as caught:
        leaderboard(find_results([folder]))
    assert "\n" not in str(caught.value)


def test_costs_are_the_recorded_ones() -> None:
    """Six runs of 100 steps of one thread each, by the stages of the committed manifest."""
    manifest = read_manifest(COMMITTED / "first-world")
    took = [s.seconds for s in manifest.stages if s.label.startswith("training DPO seed")]
    assert len(took) == 6
    total = sum(seconds or np.nan for seconds in took)
    found = training_cost(manifest, "DPO")
    assert found is not None and found.device == "CPU"
    assert found.hours == pytest.approx(total / 3600)
    assert found.seconds_per_step == pytest.approx(total / 600)
    assert training_cost(manifest, "base") is None
    stages = tuple(s for s in manifest.stages if s.label != "training DPO seed 3")
    assert training_cost(manifest.model_copy(update={"stages": stages}), "DPO") is None
    spec = manifest.spec | {"training": {"device": "cuda", "processes": 4}}
    on_gpus = training_cost(manifest.model_copy(update={"spec": spec}), "DPO")
    assert on_gpus is not None and on_gpus.device == "GPU"
    assert on_gpus.hours == pytest.approx(4 * total / 3600)


def test_a_folder_of_its_own_and_one_that_it_lies_in_give_one_board(tmp_path: Path) -> None:
    own = tmp_path / "first-world"
    shutil.copytree(COMMITTED / "first-world", own)
    assert leaderboard(find_results([tmp_path])) == leaderboard(find_results([own]))
    assert only(tmp_path).base == "mini-sd"


def test_analysis_gives_the_same_gain_where_the_family_is_the_same(
    make_protocol: MakeProtocol, make_scores: MakeScores, write: Callable[..., Path]
) -> None:
    """Both arms against base, and nothing else, declared: seed noise is then that of the board."""
    family = tuple(
        {"name": f"{arm} - base", "on": (arm,), "off": ("base",), "question": "?"}
        for arm in EFFECTS
    )
    changes = {"comparisons": family, "statistics.gain": None, "statistics.share": None}
    protocol = make_protocol(changes)
    declared = analyse(make_scores(protocol, EFFECTS, noise=0.1), protocol)
    found = rows(only(write("one", changes)))
    for finding in declared.comparisons:
        contrast = finding.contrasts["truth"]
        assert contrast is not None
        assert found[finding.comparison.on[0]].standings["truth"].gain == contrast.interval
