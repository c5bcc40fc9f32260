"""From made-up scores to results: the right arms are subtracted, and nothing is made up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bench import stats
from bench.results.analysis import Contrast, Results, analyse
from bench.results.protocol import Arm, Comparison, Protocol

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
EFFECTS = {"DPO": 0.25, "DPO+A": 0.625}


def contrast(results: Results, number: int, reward: str = "truth") -> Contrast:
    found = results.comparisons[number].contrasts[reward]
    assert found is not None
    return found


def matrix(scores: pd.DataFrame, arm: str, reward: str = "truth") -> NDArray[np.float64]:
    """Scores ``[S, P]`` of an arm with one image per prompt."""
    rows = scores[(scores["arm"] == arm) & (scores["reward"] == reward)]
    rows = rows.assign(train_seed=rows["train_seed"].fillna(-1))
    table = rows.pivot(index="train_seed", columns="prompt_id", values="score")
    return table.to_numpy(np.float64)


def where(scores: pd.DataFrame, **columns: Any) -> "pd.Series[bool]":
    found = pd.Series(True, index=scores.index)
    for column, value in columns.items():
        found &= scores[column] == value
    return found


def test_known_differences_are_recovered(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    results = analyse(make_scores(make_protocol(), EFFECTS), make_protocol())
    for number, expected in enumerate((0.25, 0.375)):
        found = contrast(results, number).interval
        assert (found.mean, found.low, found.high) == (expected, expected, expected)
        assert (found.n_seeds, found.n_prompts, found.n_missing) == (3, 20, 0)
        assert contrast(results, number).seed_effects == (expected,) * 3
        assert contrast(results, number).wins.wins == 60
        assert results.comparisons[number].verdict == "helps"
    assert results.missing == {"truth": 0, "flaws": 0}
    assert results.expected == (1 + 3 + 3 + 3 + 3) * 20


def test_noisy_differences_are_those_of_the_table(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.2)
    results = analyse(scores, make_protocol())
    on, off, base = (matrix(scores, a) for a in ("DPO+A", "DPO", "base"))
    assert base.shape == (1, 20)
    differences = (off - base, on - off)
    noise = stats.seed_noise(differences)
    for number, d in enumerate(differences):
        found = contrast(results, number)
        assert found.interval == stats.moderated_interval(d, noise)
        assert found.interval.mean == pytest.approx(d.mean(), abs=1e-12)
        assert found.seed_effects == pytest.approx(tuple(d.mean(axis=1)))
        assert found.wins.wins == (d > 0).sum()
        assert found.wins.losses == (d < 0).sum()
        assert found.dz == pytest.approx(d.mean() / d.std(ddof=1))
        assert found.bootstrap is not None
        assert found.bootstrap[0] < d.mean() < found.bootstrap[1]
    mean = results.means["DPO+A"]["truth"]
    assert isinstance(mean, stats.Interval)
    assert mean.mean == pytest.approx(on.mean())


def test_every_trained_arm_is_held_against_the_base_model(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.2)
    results = analyse(scores, make_protocol())
    assert list(results.against_base) == ["DPO", "DPO+A"]
    found = results.against_base["DPO+A"]
    d = matrix(scores, "DPO+A") - matrix(scores, "base")
    assert found is not None
    assert (found.wins, found.losses) == ((d > 0).sum(), (d < 0).sum())


def test_only_the_primary_reward_has_a_bootstrap(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    results = analyse(make_scores(make_protocol(), EFFECTS, noise=0.2), make_protocol())
    assert contrast(results, 0, "flaws").bootstrap is None


def test_a_lower_direction_flips_the_sign(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    results = analyse(make_scores(make_protocol(), {"DPO": -0.25, "DPO+A": -0.25}), make_protocol())
    assert contrast(results, 0, "truth").interval.mean == -0.25
    assert contrast(results, 0, "flaws").interval.mean == 0.25
    assert contrast(results, 0, "truth").wins.losses == 60
    assert contrast(results, 0, "flaws").wins.wins == 60
    assert results.comparisons[0].verdict == "hurts"
    # Means are shown as they were scored.
    means = results.means
    for reward in ("truth", "flaws"):
        on, off = means["DPO"][reward], means["base"][reward]
        assert isinstance(on, stats.Interval)
        assert isinstance(off, stats.Interval)
        assert on.mean - off.mean == pytest.approx(-0.25)


def test_a_missing_score_leaves_as_a_pair(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol({"prompts.ids": tuple(f"p{n:02d}" for n in range(40))})
    scores = make_scores(protocol, EFFECTS, noise=0.1)
    full = scores.copy()
    lost = where(scores, arm="DPO+A", train_seed=1, prompt_id="p07", reward="truth")
    scores.loc[lost, "score"] = np.nan
    # What stands opposite, and the rest of the prompt, must have no weight any more.
    for arm in ("DPO+A", "DPO"):
        rest = where(scores, arm=arm, prompt_id="p07", reward="truth") & ~lost
        scores.loc[rest, "score"] = 1e6
    results = analyse(scores, protocol)
    assert results.missing == {"truth": 1, "flaws": 0}
    found = contrast(results, 1).interval
    d = matrix(full, "DPO+A") - matrix(full, "DPO")
    assert found.mean == pytest.approx(np.delete(d, 7, axis=1).mean())
    assert (found.n_missing, found.n_prompts, found.dropped_prompts) == (1, 39, 1)
    assert results.comparisons[1].verdict == "helps"  # 1 of 120 is less than 1 %.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
def test_more_than_one_percent_missing_blocks(
    make_protocol: MakeProtocol, make_scores: MakeScores, value: float | None
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.1)
    scores.loc[where(scores, arm="DPO+A", train_seed=1, prompt_id="p07"), "score"] = value
    results = analyse(scores, make_protocol())
    assert results.missing == {"truth": 1, "flaws": 1}
    blocked = results.comparisons[1]
    assert blocked.verdict == "blocked"
    assert blocked.reason == "1.7% of the pairs are missing, above 1 %"
    assert results.comparisons[0].verdict == "helps"  # 1 of 60, and only in this arm.


def test_a_row_that_is_not_there_is_missing(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.1)
    lost = where(scores, arm="DPO", train_seed=2, prompt_id="p00", reward="truth")
    results = analyse(scores[~lost], make_protocol())
    assert results.missing == {"truth": 1, "flaws": 0}
    assert [c.verdict for c in results.comparisons] == ["blocked", "blocked"]


def test_a_base_image_is_missing_opposite_every_seed(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol({"prompts.ids": tuple(f"p{n:03d}" for n in range(120))})
    scores = make_scores(protocol, EFFECTS, noise=0.1)
    scores.loc[where(scores, arm="base", prompt_id="p003", reward="truth"), "score"] = np.nan
    results = analyse(scores, protocol)
    assert results.missing["truth"] == 1
    assert contrast(results, 0).interval.n_missing == 3
    assert contrast(results, 0).interval.n_prompts == 119
    assert contrast(results, 1).interval.n_prompts == 120


def test_images_of_a_cell_are_averaged_over_complete_pairs(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol(
        {"images.per_prompt": 2, "prompts.ids": tuple(f"p{n:03d}" for n in range(120))}
    )
    scores = make_scores(protocol, EFFECTS, noise=0.1)
    cell = {"train_seed": 0, "prompt_id": "p000", "reward": "truth"}
    scores.loc[where(scores, arm="DPO+A", k=0, **cell), "score"] = np.nan
    scores.loc[where(scores, arm="DPO", k=0, **cell), "score"] = 1e6
    found = contrast(analyse(scores, protocol), 1)
    assert found.interval.n_missing == 0
    assert found.wins.n_missing == 1
    on, off = (
        scores[where(scores, arm=arm, k=1, **cell)]["score"].item() for arm in ("DPO+A", "DPO")
    )
    rows = scores[(scores["reward"] == "truth") & ~where(scores, **cell)]
    wide = {a: rows[rows["arm"] == a]["score"].to_numpy(float) for a in ("DPO+A", "DPO")}
    others = (wide["DPO+A"] - wide["DPO"]).reshape(-1, 2).mean(axis=1)
    assert found.interval.mean == pytest.approx((others.sum() + on - off) / (3 * 120))


def test_missing_images_block_though_every_cell_is_there(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol({"images.per_prompt": 2})
    scores = make_scores(protocol, EFFECTS, noise=0.1)
    lost = where(scores, arm="DPO+A", k=1, reward="truth") & scores["prompt_id"].isin(["p01"])
    scores.loc[lost, "score"] = np.nan
    results = analyse(scores, protocol)
    assert contrast(results, 1).interval.n_missing == 0
    assert results.comparisons[1].verdict == "blocked"
    assert results.comparisons[1].reason == "2.5% of the pairs are missing, above 1 %"


def test_indices_of_the_control_are_folded_to_its_images(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol({"images.per_prompt": 2})
    scores = make_scores(protocol, EFFECTS, noise=0.1)
    before = analyse(scores, protocol)
    control = scores["arm"].str.startswith("A/A")
    scores.loc[control, "k"] += 2 * (1 + scores.loc[control, "train_seed"].astype(int))
    assert analyse(scores, protocol) == before


def test_scores_that_are_close_are_ties(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), {"DPO": 0.0625, "DPO+A": 0.5})
    closest = analyse(scores, make_protocol({"statistics.tie": 0.0625}))
    wins = contrast(closest, 0).wins
    assert (wins.wins, wins.ties, wins.losses, wins.rate) == (0, 60, 0, 0.5)
    assert contrast(closest, 1).wins.wins == 60
    assert contrast(analyse(scores, make_protocol({"statistics.tie": 0.0624})), 0).wins.wins == 60


def test_the_controls_measure_noise_and_set_no_bound(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.2)
    results = analyse(scores, make_protocol())
    d = matrix(scores, "A/A") - matrix(scores, "A/A'")
    images = results.image_noise["truth"]
    assert images is not None
    assert images.interval == stats.crossed_interval(d)
    runs = results.training_noise["DPO"]
    assert runs is not None
    assert runs.typical == pytest.approx(
        np.sqrt(2) * matrix(scores, "DPO").mean(axis=1).std(ddof=1)
    )
    without = analyse(scores[~scores["arm"].str.startswith("A/A")], make_protocol())
    assert without.image_noise == {"truth": None, "flaws": None}
    assert without.comparisons == results.comparisons


@pytest.mark.parametrize(
    ("declared", "verdict"),
    [
        ({"share": 0.5}, "equivalent"),
        ({"share": 0.01}, "inconclusive"),
        ({"share": None, "bound": 0.1}, "equivalent"),
        ({"share": None, "bound": 0.001}, "inconclusive"),
        ({"share": None, "gain": None}, "inconclusive"),
    ],
)
def test_equivalence_is_as_it_was_declared(
    make_protocol: MakeProtocol,
    make_scores: MakeScores,
    declared: dict[str, Any],
    verdict: str,
) -> None:
    """A share of the gain 0.25, or a number; without either only identical arms are equivalent."""
    protocol = make_protocol({f"statistics.{key}": value for key, value in declared.items()})
    results = analyse(make_scores(protocol, {"DPO": 0.25, "DPO+A": 0.25}, noise=0.1), protocol)
    assert results.comparisons[1].verdict == verdict


def test_differences_are_shares_of_the_gain(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.1)
    results = analyse(scores, make_protocol())
    assert contrast(results, 0).of_gain is None
    share = contrast(results, 1).of_gain
    assert share is not None
    assert share.share == pytest.approx(
        contrast(results, 1).interval.mean / contrast(results, 0).interval.mean
    )
    assert share.low < 1.5 < share.high
    assert contrast(results, 1, "flaws").of_gain is None, "DPO gains no fewer flaws"
    none = analyse(scores, make_protocol({"statistics.gain": None, "statistics.share": None}))
    assert contrast(none, 1).of_gain is None


def test_an_interaction_is_a_difference_of_differences(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    seeds = (0, 1, 2)
    protocol = make_protocol(
        {
            "arms": (
                {"name": "base", "seeds": (None,)},
                *({"name": name, "seeds": seeds} for name in ("DPO", "A", "B", "AB")),
            ),
            "comparisons": (
                Comparison(name="DPO - base", on=("DPO",), off=("base",), question="?"),
                Comparison(name="A x B", on=("AB", "DPO"), off=("A", "B"), question="?"),
            ),
        }
    )
    effects = {"DPO": 0.25, "A": 0.375, "B": 0.5, "AB": 1.0}
    results = analyse(make_scores(protocol, effects), protocol)
    assert contrast(results, 1).interval.mean == 0.375


THREE = (
    Comparison(name="DPO - base", on=("DPO",), off=("base",), question="?"),
    Comparison(name="DPO+A - DPO", on=("DPO+A",), off=("DPO",), question="?"),
    Comparison(name="DPO+A - base", on=("DPO+A",), off=("base",), question="?"),
)


def by_hand(p: list[float]) -> list[float]:
    """Holm's adjustment, as the paper puts it: the step that first fails stops the rest."""
    adjusted: dict[int, float] = {}
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return [adjusted[i] for i in range(len(p))]


def test_p_values_are_adjusted_over_the_declared_family(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol({"comparisons": THREE})
    scores = make_scores(protocol, {"DPO": 0.02, "DPO+A": 0.05}, noise=0.1)
    results = analyse(scores, protocol)
    raw = [contrast(results, n).interval.p_value for n in range(3)]
    assert len({round(p, 6) for p in raw}) == 3
    assert [c.p_adjusted for c in results.comparisons] == pytest.approx(by_hand(raw))


def test_a_comparison_that_cannot_be_made_stays_in_the_family(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol({"comparisons": THREE})
    scores = make_scores(protocol, {"DPO": 0.02}, noise=0.1)
    results = analyse(scores[scores["arm"] != "DPO+A"], protocol)
    first, *others = results.comparisons
    raw = contrast(results, 0).interval.p_value
    assert first.p_adjusted == pytest.approx(min(1.0, 3 * raw))
    for lost in others:
        assert lost.contrasts == {"truth": None, "flaws": None}
        assert lost.p_adjusted is None
        assert (lost.verdict, lost.reason) == ("blocked", "too few complete pairs")
    assert results.means["DPO+A"] == {"truth": None, "flaws": None}
    assert results.missing == {"truth": 60, "flaws": 60}


def test_a_seed_that_is_wholly_missing_blocks(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.1)
    lost = where(scores, arm="DPO", train_seed=2)
    results = analyse(scores[~lost], make_protocol())
    found = contrast(results, 0).interval
    assert (found.n_seeds, found.dropped_seeds, found.n_prompts) == (2, 1, 20)
    assert len(contrast(results, 0).seed_effects) == 2
    assert results.comparisons[0].reason == "33.3% of the pairs are missing, above 1 %"


def test_one_training_seed_gives_no_verdict(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    arms = (
        Arm(name="base", seeds=(None,)),
        *(Arm(name=name, seeds=(4,)) for name in EFFECTS),
    )
    protocol = make_protocol({"arms": arms})
    results = analyse(make_scores(protocol, EFFECTS, noise=0.1), protocol)
    assert [c.verdict for c in results.comparisons] == ["conditional", "conditional"]
    assert contrast(results, 0).interval.conditional
    assert contrast(results, 0).bootstrap is None


def test_equal_arms_are_called_identical(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    results = analyse(make_scores(make_protocol(), {"DPO": 0.25, "DPO+A": 0.25}), make_protocol())
    same = results.comparisons[1]
    assert (same.verdict, same.p_adjusted) == ("equivalent", None)
    assert "identical" in same.reason
    assert contrast(results, 1).wins.ties == 60
    assert contrast(results, 1).dz == 0


def test_alpha_is_the_level_of_intervals_and_verdicts(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), {"DPO": 0.02, "DPO+A": 0.05}, noise=0.1)
    strict, wide = (analyse(scores, make_protocol({"statistics.alpha": a})) for a in (0.001, 0.2))
    first, second = (contrast(r, 1).interval for r in (strict, wide))
    assert first.confidence == pytest.approx(0.999)
    assert second.confidence == pytest.approx(0.8)
    assert first.low < second.low < second.high < first.high


def test_rows_of_other_arms_and_rewards_are_left_out(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.1)
    extra = scores.head(5).assign(arm="DPO+Z")
    other = scores.head(5).assign(reward="beauty")
    expected = analyse(scores, make_protocol())
    assert (
        analyse(pd.concat([scores, extra, other], ignore_index=True), make_protocol()) == expected
    )
