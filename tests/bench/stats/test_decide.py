"""Holm, advice and the verdicts of a family."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bench.stats import (
    Interval,
    Judgement,
    advice,
    holm,
    judge,
    moderated_interval,
    seed_noise,
    share_of_gain,
)

Array = NDArray[np.float64]


def interval(mean: float, se: float = 0.1, df: float = 10.0, n_seeds: int = 5) -> Interval:
    """An interval with given mean, se and df, as of complete data."""
    half = float(stats.t.ppf(0.975, df)) * se
    p_value = float(2 * stats.t.sf(abs(mean) / se, df)) if se else float(mean == 0)
    return Interval(
        mean=mean,
        low=mean - half,
        high=mean + half,
        se=se,
        df=df,
        p_value=p_value,
        confidence=0.95,
        n_seeds=n_seeds,
        n_prompts=50,
        n_missing=0,
        missing_share=0.0,
        dropped_seeds=0,
        dropped_prompts=0,
        share_seed=0.5,
        share_prompt=0.3,
        share_residual=0.2,
        conditional=n_seeds == 1,
    )


def test_holm_by_hand() -> None:
    """Sorted .01, .03, .04: x3 = .03, x2 = .06, x1 = .04 raised to .06; in the input order."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).size == 0


@pytest.mark.parametrize("bad", [[0.1, float("nan")], [1.2], [-0.1], [[0.1]], 0.1])
def test_holm_refuses(bad: object) -> None:
    """A NaN would otherwise count as a member of the family without being tested."""
    with pytest.raises(ValueError, match=r"list of p-values in \[0, 1\]"):
        holm(bad)  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_order(p: list[float]) -> None:
    """Never below the input, never above m p, monotone, and blind to the order of the family."""
    raw, adjusted = np.array(p), holm(p)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, len(p) * raw)).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    assert holm(p[::-1])[::-1] == pytest.approx(adjusted)


def test_advice() -> None:
    """The larger share decides, from 3 seeds on."""
    more_prompts = dataclasses.replace(interval(0.0), share_seed=0.1, share_prompt=0.6)
    assert advice(interval(0.0)) == "add seeds"
    assert advice(more_prompts) == "add prompts"
    assert advice(dataclasses.replace(more_prompts, n_seeds=2)) == "add seeds"


def matrix(mean: float, seed: int = 0, n_seeds: int = 4, sd: float = 1.0) -> Array:
    """Differences over 100 prompts of exactly this mean; standard error about sd / 20."""
    d = np.random.default_rng(seed).normal(0, sd, (n_seeds, 100))
    return np.asarray(d - d.mean() + mean)


def single(d: Array | None, missing: float = 0.0, bound: float | None = 0.3) -> Judgement:
    """The judgement of a family of one."""
    return judge([d], [missing], bound=bound)[0]


GAIN = matrix(1.0, 9)


@pytest.mark.parametrize(
    ("mean", "bound", "expected"),
    [
        (0.5, 0.3, "helps"),
        (-0.5, 0.3, "hurts"),
        (0.02, 0.3, "equivalent"),
        (0.02, 0.05, "inconclusive"),
        (0.02, None, "inconclusive"),
    ],
)
def test_words(mean: float, bound: float | None, expected: str) -> None:
    """Standard error about 0.05 or a little more."""
    assert single(matrix(mean), bound=bound).verdict.word == expected


def test_words_come_from_the_moderated_p_after_holm_over_the_family() -> None:
    """Each figure is what the functions of its own say; order is that of the family."""
    family = [matrix(0.16, 1), matrix(0.2, 2), matrix(0.01, 3), matrix(1.0, 4)]
    found = judge(family, [0.0] * 4, bound=0.3)
    noise = seed_noise(family)
    intervals = [moderated_interval(d, noise) for d in family]
    assert [j.interval for j in found] == intervals
    adjusted = holm([i.p_value for i in intervals])
    assert [j.p_adjusted for j in found] == adjusted.tolist()
    assert [j.verdict.word == "helps" for j in found] == (adjusted < 0.05).tolist()
    assert found[3].verdict.word == "helps"


def test_correction_takes_words_away() -> None:
    """Significant alone, not among five."""
    d = matrix(0.16, 1)
    alone, *_ = judge([d], [0.0])
    among, *_ = judge([d, *(matrix(0.0, s) for s in range(2, 6))], [0.0] * 5)
    assert alone.verdict.word == "helps"
    assert among.verdict.word == "inconclusive"


def test_what_cannot_be_decided_stays_in_the_family_with_p_one() -> None:
    """A sure one-run, two-run, blocked or absent comparison lends no weight to the others."""
    d = matrix(0.16, 1)
    one, two = matrix(5.0, 2), matrix(5.0, 3)
    one[1:], two[2:] = np.nan, np.nan
    found = judge([d, None, matrix(5.0, 4), one[:, :], two], [0.0, 0.0, 0.5, 0.0, 0.0])
    assert found[0].interval is not None
    assert found[0].p_adjusted == pytest.approx(min(1, 5 * found[0].interval.p_value))
    assert [j.p_adjusted for j in found[1:]] == [None] * 4
    assert found[1].verdict.word == "blocked"


def test_a_small_effect_is_named_small() -> None:
    """Helps, and within the bound at once: the reason says both."""
    got = single(matrix(0.5), bound=2.0)
    assert got.verdict.word == "helps"
    assert "shown within +-2: smaller than what was declared to matter" in got.verdict.reason
    assert "smaller" not in single(matrix(0.5)).verdict.reason


def test_a_share_of_the_gain_is_the_bound() -> None:
    """Within a fifth of a gain of 1; helps within it; and not within a fiftieth."""
    family = [GAIN, matrix(0.0, 1, sd=0.3), matrix(0.1, 2, sd=0.3)]
    found = judge(family, [0.0] * 3, gain=0, share=0.2)
    assert [j.verdict.word for j in found] == ["helps", "equivalent", "helps"]
    assert "shown within +-20% of the gain" in found[1].verdict.reason
    assert "smaller than what was declared to matter" in found[2].verdict.reason
    assert "smaller" not in found[0].verdict.reason
    narrow = judge(family, [0.0] * 3, gain=0, share=0.02)
    assert narrow[1].verdict.word == "inconclusive"
    assert "not shown within +-2% of the gain" in narrow[1].verdict.reason


def test_every_difference_is_also_a_share_of_the_gain() -> None:
    """Whatever the bound; not the gain itself."""
    family = [GAIN, matrix(0.3, 1), matrix(0.0, 2)]
    found = judge(family, [0.0] * 3, gain=0, bound=0.1)
    noise = seed_noise(family)
    assert found[0].of_gain is None
    assert [j.of_gain for j in found[1:]] == [share_of_gain(d, GAIN, noise) for d in family[1:]]
    assert found[1].of_gain is not None
    assert found[1].of_gain.share == pytest.approx(0.3)
    assert [j.of_gain for j in judge(family, [0.0] * 3)] == [None] * 3


@pytest.mark.parametrize(
    ("gain", "missing"), [(matrix(0.01, 9), 0.0), (-GAIN, 0.0), (GAIN, 0.5), (None, 0.0)]
)
def test_a_gain_that_is_not_established_bounds_nothing(gain: Array | None, missing: float) -> None:
    """Not significant, a loss, blocked or absent: inconclusive, and the reason says so."""
    found = judge([gain, matrix(0.0, 1, sd=0.1)], [missing, 0.0], gain=0, share=0.2)[1]
    assert found.verdict.word == "inconclusive"
    assert "the gain is not established" in found.verdict.reason
    assert found.of_gain is None


def test_identical_arms_are_equivalent_even_without_a_bound() -> None:
    """Every difference exactly 0, of two runs, too; a constant difference is not the same thing."""
    for n_seeds in (2, 3):
        got = single(np.zeros((n_seeds, 5)), bound=None)
        assert (got.verdict.word, got.p_adjusted) == ("equivalent", None)
    assert single(np.full((3, 5), 0.1), bound=None).verdict.word == "helps"


def test_one_seed_is_never_a_verdict() -> None:
    """However clear, and even for identical arms."""
    assert single(matrix(5.0, n_seeds=1)).verdict.word == "conditional"
    assert single(np.zeros((1, 5))).verdict.word == "conditional"


@pytest.mark.parametrize("mean", [-5.0, 0.0, 5.0])
def test_two_seeds_decide_nothing(mean: float) -> None:
    """Neither a huge difference nor a huge bound."""
    got = single(matrix(mean, n_seeds=2), bound=1e6)
    assert got.verdict.word == "inconclusive"
    assert "two training seeds decide nothing" in got.verdict.reason


def test_missing_pairs_block() -> None:
    """Above 1 %, whether the caller or the matrix counts them; before anything else."""
    assert single(matrix(0.5), 0.01).verdict.word == "helps"
    assert single(matrix(0.5), 0.0101).verdict.word == "blocked"
    assert single(matrix(0.5, n_seeds=1), 0.5).verdict.word == "blocked"
    holed = matrix(0.5)
    holed[0, :5] = np.nan
    assert "1.2% of the pairs are missing" in single(holed).verdict.reason


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"missing": [0.0]}, "missing share in"),
        ({"missing": [0.0, 3.0]}, "missing share in"),
        ({"gain": 2, "share": 0.2}, "index of a comparison, 0 to 1"),
        ({"share": 0.2}, "a share with its gain, or a bound"),
        ({"gain": 0, "share": 0.2, "bound": 0.1}, "declare one of the two"),
        ({"gain": 0, "share": 20.0}, r"write 20 % as 0\.2"),
        ({"bound": 0.0}, "finite bound > 0"),
        ({"bound": float("nan")}, "finite bound > 0"),
        ({"alpha": 5.0}, r"write 5 % as 0\.05"),
    ],
)
def test_judge_refuses(settings: dict[str, object], message: str) -> None:
    """Out of range, percentages, or a share of nothing."""
    arguments = {"missing": [0.0, 0.0]} | settings
    with pytest.raises(ValueError, match=message):
        judge([GAIN, GAIN], **arguments)  # type: ignore[arg-type]
