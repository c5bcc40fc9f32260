"""The verdicts of simulated experiments: errors, equivalence and coverage, in little.

The tables of docs/statistics.md, by the same functions with fewer replicates.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.stats import judge, seed_noise, within_share

_PATH = Path(__file__).parents[2] / "perf" / "verdicts.py"
_SPEC = importlib.util.spec_from_file_location("verdicts", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
verdicts = importlib.util.module_from_spec(_SPEC)
sys.modules["verdicts"] = verdicts  # dataclasses look their module up
_SPEC.loader.exec_module(verdicts)

CROSSED, LARGER, *_, CHOSEN = verdicts.RULES
GAIN = 0.0325


@pytest.mark.parametrize("family", [1, 6, 12])
def test_null_experiments_rarely_have_a_word(family: int) -> None:
    """At most 6 % of them, with 3 and 5 seeds, over seed noise of 0 to 80 %.

    2000 replicates: a rate of 6 % would show up to 8.1 % (4 standard errors); rules that fail,
    such as the crossed p-value alone, reach 13 % with six comparisons and 20 % with twelve.
    """
    worst = {CHOSEN: 0.0, CROSSED: 0.0}
    for n_seeds in (3, 5):
        for share in (0.0, 0.4, 0.8):
            plan = verdicts.design(family, n_seeds, 100, share)
            seed = [family, n_seeds, round(100 * share)]
            found = verdicts.rates(plan, 2000, seed, list(worst))
            worst = {name: max(rate, found[name][0]) for name, rate in worst.items()}
    assert worst[CHOSEN] < 0.06 + 4 * (0.06 * 0.94 / 2000) ** 0.5
    if family > 1:
        assert worst[CROSSED] > 0.12
        assert worst[CHOSEN] < 0.06


def test_the_chosen_rule_has_the_power_of_an_invalid_one() -> None:
    """With 3 seeds and 60 % of seed noise it finds more than the crossed p and (a) do."""
    plan = verdicts.design(6, 3, 100, 0.6)
    found = {name: rate[1] for name, rate in verdicts.rates(plan, 2000, [1]).items()}
    assert found[CHOSEN] > found[CROSSED] + 0.04
    assert found[CHOSEN] > 2 * found[LARGER]


def test_whole_matrices_through_judge_agree_with_the_drawn_mean_squares() -> None:
    """The shortcut of the simulation is one: same rate of words, from matrices cell by cell.

    3 seeds, 60 prompts, seed noise of 60 %, X - DPO at four standard errors. 400 experiments: 4
    standard errors of the difference are 0.11.
    """
    plan = verdicts.design(6, 3, 60, 0.6)
    shift = 4 * float(np.sqrt(np.abs(plan.contrasts[-1]) @ plan.variance))
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(400):
        family = verdicts.experiment(rng, 3, 60, GAIN, shift, float(plan.seed_sd[0]))[1:]
        last = judge(family, [0.0] * 6)[-1]
        assert last.interval is not None
        found += last.interval.p_value < 0.05 / 6
    expected = verdicts.rates(plan, 4000, [2], [CHOSEN])[CHOSEN][1]
    assert 0.3 < expected < 0.9
    assert found / 400 == pytest.approx(expected, abs=0.11)


@pytest.mark.parametrize(("n_seeds", "share"), [(6, 0.2), (3, 0.3)])
def test_equivalence_is_harder_with_less_data(n_seeds: int, share: float) -> None:
    """At a true difference of 0 the share of equivalent rises with prompts, from (near) never.

    200 experiments: a fall by chance stays below 0.14 (4 standard errors).
    """
    rates = []
    for n_prompts in (10, 20, 100, 200, 500):
        rng = np.random.default_rng([n_seeds, n_prompts])
        found = [
            verdicts.equivalent(verdicts.experiment(rng, n_seeds, n_prompts, GAIN), share)
            for _ in range(200)
        ]
        rates.append(sum(found) / 200)
    assert rates[0] <= 0.02
    assert rates[1] <= 0.05
    assert rates[-1] > 0.4
    assert (np.diff(rates) > -0.05).all()
    assert rates[-1] > rates[2] + 0.15


def test_equivalent_is_what_judge_says() -> None:
    """The shortcut of the last test has the conditions of the verdict."""
    rng = np.random.default_rng(3)
    words = []
    for n_prompts in (30, 400) * 8:
        family = verdicts.experiment(rng, 6, n_prompts, GAIN)
        words.append(judge(family, [0.0] * 7, gain=0, share=0.25)[-1].verdict.word)
        assert (words[-1] == "equivalent") == verdicts.equivalent(family, 0.25)
    assert {"equivalent", "inconclusive"} <= set(words)


def test_equivalence_is_rarely_wrong() -> None:
    """At a true difference of just the declared share of the gain: 5 %, plus 4 standard errors."""
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(500):
        family = verdicts.experiment(rng, 4, 150, GAIN, 0.2 * GAIN)
        wrong += within_share(family[-1], family[0], 0.2, seed_noise(family))
    assert wrong / 500 < 0.05 + 4 * (0.05 * 0.95 / 500) ** 0.5


def test_two_seeds_are_never_equivalent() -> None:
    """Whatever the prompts; identical arms aside."""
    rng = np.random.default_rng(9)
    for _ in range(40):
        found = judge(verdicts.experiment(rng, 2, 500, GAIN), [0.0] * 7, gain=0, share=0.9)
        assert {j.verdict.word for j in found} == {"inconclusive"}


@pytest.mark.parametrize("seed_sd", [0.0035, 0.012])
def test_intervals_cover(seed_sd: float) -> None:
    """95 % intervals of a difference and of its share of the gain, 3 seeds; 4 standard errors.

    They err to the safe side with few seeds, so only the lower side is a limit.
    """
    _, moderated, share, established = verdicts.covered(500, 3, seed_sd)
    assert moderated > 0.95 - 4 * (0.95 * 0.05 / 500) ** 0.5
    assert share > 0.95 - 4 * (0.95 * 0.05 / (500 * established)) ** 0.5
    assert established > 0.5
