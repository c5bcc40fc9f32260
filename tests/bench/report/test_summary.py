"""What is said of results: made-up ones, of which every sentence is known."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest

from bench.report.summary import summary
from bench.results.analysis import Contrast, Finding, Results
from bench.results.protocol import Comparison, Protocol
from bench.stats import Interval, ShareOfGain, VerdictWord, WinRate

MakeProtocol = Callable[..., Protocol]
Row = tuple[str, str, VerdictWord, Mapping[str, Contrast | None]]


def contrast(
    mean: float,
    half: float,
    rate: float = 0.5,
    spread: float = 0.04,
    share: tuple[float, float, float] | None = None,
) -> Contrast:
    """A difference of ``mean +- half``, a win rate of ``rate +- spread``, a share of the gain."""
    # At a million degrees of freedom t is normal: the 95 % interval is 1.96 standard errors wide.
    interval = Interval(
        mean, mean - half, mean + half, half / 1.96, 1e6, 0.5, 0.95, 3, 20, 0, 0.0, 0, 0, 0.2, 0.6,
        0.2, False,
    )  # fmt: skip
    wins = WinRate(rate, rate - spread, rate + spread, 0.5, 0.95, 30, 0, 30, 3, 20, 0, "crossed")
    of_gain = None if share is None else ShareOfGain(*share, 0.95)
    return Contrast(interval, of_gain, wins, None, None, (mean,) * 3)


@pytest.fixture
def make_results(make_protocol: MakeProtocol) -> Callable[..., Results]:
    """Results of comparisons: names of both arms, a verdict, and a contrast for each reward."""

    def make(*rows: Row, missing: int = 0) -> Results:
        names = dict.fromkeys(name for on, off, *_ in rows for name in (off, on) if name != "base")
        arms: list[dict[str, Any]] = [{"name": "base", "seeds": (None,)}]
        arms += [{"name": name, "seeds": (0, 1, 2)} for name in names]
        comparisons = [
            Comparison(name=f"{on} - {off}", on=(on,), off=(off,), question="?")
            for on, off, *_ in rows
        ]
        rewards = list(rows[0][3])
        protocol = make_protocol(
            {
                "arms": arms,
                "comparisons": comparisons,
                "statistics.gain": comparisons[0].name,
                "rewards": [{"name": r, "direction": "higher", "signature": r} for r in rewards],
            }
        )
        level = contrast(0.7227, 0.01).interval
        return Results(
            protocol=protocol,
            means={arm.name: dict.fromkeys(rewards, level) for arm in protocol.arms},
            against_base={},
            missing={r: missing for r in rewards},
            expected=260,
            comparisons=tuple(
                Finding(c, dict(contrasts), 0.5, word, f"because of {word}")
                for c, (_, _, word, contrasts) in zip(comparisons, rows, strict=True)
            ),
            image_noise={},
            training_noise={},
        )

    return make


def test_effects_are_in_units_and_in_percent_of_the_gain(
    make_results: Callable[..., Results],
) -> None:
    found = make_results(
        ("DPO", "base", "helps", {"truth": contrast(0.04, 0.01)}),
        ("DPO+A", "DPO", "equivalent", {"truth": contrast(0.002, 0.005, share=(0.05, -0.1, 0.2))}),
        ("DPO+B", "DPO", "hurts", {"truth": contrast(-0.03, 0.01, share=(-0.75, -1.2, -0.4))}),
        ("DPO+A+B", "DPO", "hurts", {"truth": contrast(-0.01, 0.005)}),
    )
    assert summary(found) == (
        "On truth (0.7227 for base; 95% intervals; percentages of the gain DPO - base) what helps "
        "is DPO - base: +0.0400 [+0.0300, +0.0500].",
        "What hurts is DPO+B - DPO: -0.0300 [-0.0400, -0.0200], -75 % [-120, -40]; "
        "DPO+A+B - DPO: -0.0100 [-0.0150, -0.0050].",
        "What is equivalent is DPO+A - DPO: +0.0020 [-0.0030, +0.0070], +5 % [-10, +20].",
        "No score is missing.",
    )


@pytest.mark.parametrize("word", ["inconclusive", "hurts", "conditional", "equivalent"])
def test_nothing_is_in_percent_of_a_gain_that_is_not_seen(
    make_results: Callable[..., Results], word: VerdictWord
) -> None:
    found = make_results(
        ("DPO", "base", word, {"truth": contrast(0.001, 0.01)}),
        ("DPO+A", "DPO", "helps", {"truth": contrast(0.03, 0.01)}),
    )
    text = " ".join(summary(found))
    assert "percentages" not in text
    assert "DPO+A - DPO: +0.0300 [+0.0200, +0.0400]." in text


def test_the_gain_is_the_declared_one(make_results: Callable[..., Results]) -> None:
    found = make_results(
        ("SFT", "base", "helps", {"truth": contrast(0.01, 0.005)}),
        ("DPO", "base", "helps", {"truth": contrast(0.04, 0.01, share=(4.0, 2.0, 9.0))}),
    )
    assert "gain SFT - base" in summary(found)[0]
    assert "DPO - base: +0.0400 [+0.0300, +0.0500], +400 % [+200, +900]" in summary(found)[0]


def test_eight_comparisons_with_every_verdict_take_six_sentences(
    make_results: Callable[..., Results],
) -> None:
    words: tuple[VerdictWord, ...] = (
        "helps", "hurts", "equivalent", "inconclusive", "conditional", "blocked", "helps", "hurts"
    )  # fmt: skip
    rows: list[Row] = []
    for n, word in enumerate(words):
        truth = None if word == "blocked" else contrast(0.04, 0.01)
        learned = contrast(0.04, 0.01, 0.7)
        rows.append((f"arm {n}", "base", word, {"truth": truth, "learned": learned}))
    found = summary(make_results(*rows, missing=3))
    assert len(found) == 6
    text = " ".join(found)
    assert all(f"arm {n} - base" in text for n in range(8))
    assert found[3] == (
        "What stays open is arm 3 - base: +0.0400 [+0.0300, +0.0500]; "
        "arm 4 - base: +0.0400 [+0.0300, +0.0500]; arm 5 - base."
    )
    assert found[5] == "Missing scores: truth 3 of 260, learned 3 of 260."


def test_a_large_family_is_counted_and_not_spelt_out(make_results: Callable[..., Results]) -> None:
    names = [f"arm {n}" for n in range(11)]
    found = make_results(
        *((name, "base", "hurts", {"truth": contrast(-0.1, 0.01)}) for name in names)
    )
    text = summary(found)[0]
    assert [name for name in names if f"{name} - base" in text] == names[:8]
    assert text.endswith("; 3 more.")


def test_other_rewards_that_contradict_the_primary_are_named(
    make_results: Callable[..., Results],
) -> None:
    """By win rate alone, by the difference alone, in either direction; not where it is unclear."""
    found = make_results(
        (
            "DPO", "base", "helps",
            {"truth": contrast(0.04, 0.01, 0.66), "up": contrast(1, 0.5, 0.7),
             "down": contrast(-1, 0.5, 0.49), "unclear": contrast(0.1, 0.5, 0.52)},
        ),
        (
            "DPO+A", "DPO", "equivalent",
            {"truth": contrast(0.0, 0.01, 0.468), "up": contrast(1, 2, 0.714),
             "down": contrast(-1, 0.5, 0.392), "unclear": contrast(1, 0.5, 0.4)},
        ),
    )  # fmt: skip
    assert summary(found)[-2] == (
        "Other rewards take a side that truth does not in 2 of 2 comparisons, most in DPO+A - DPO: "
        "DPO+A wins up 71.4 %, down 39.2 % of images, by truth 46.8 % (equivalent)."
    )


@pytest.mark.parametrize(("rate", "contradicted"), [(0.4, True), (0.6, False), (0.5, False)])
def test_an_open_verdict_is_contradicted_only_by_the_other_side(
    make_results: Callable[..., Results], rate: float, contradicted: bool
) -> None:
    contrasts = {"truth": contrast(0.0, 0.01, rate), "learned": contrast(1, 0.5, 0.7)}
    found = summary(make_results(("DPO", "base", "inconclusive", contrasts)))
    assert ("No other reward takes a side that truth does not." not in found) == contradicted


def test_analysed_scores_are_summed_up(
    make_protocol: MakeProtocol, make_scores: Callable[..., pd.DataFrame]
) -> None:
    from bench.results.analysis import analyse

    protocol = make_protocol()
    found = analyse(make_scores(protocol, {"DPO": 0.25, "DPO+A": 0.375}, noise=0.1), protocol)
    told = summary(found)
    assert len(told) == 3
    assert "what helps is DPO - base: +0.2" in told[0]
    # More is better by the one, less by the other, and both rise.
    assert told[1].startswith("Other rewards take a side that truth does not in 2 of 2 comparisons")
    assert "flaws" in told[1]
