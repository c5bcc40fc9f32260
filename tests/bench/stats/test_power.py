"""Variance components and the power of the rule that gives the verdicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from bench.stats import (
    Question,
    VarianceComponents,
    judge,
    power,
    prompts_needed,
    seed_noise,
    seeds_needed,
    share_question,
    variance_components,
)

TYPICAL = VarianceComponents(seed=0.0032, prompt=0.09, residual=0.36)
QUESTION = Question(TYPICAL, 0.1)


def test_components_by_hand() -> None:
    """[[1, 2], [3, 6]]: MSs 9, MSp 4, MSe 1 -> (9-1)/2, (4-1)/2, 1."""
    assert variance_components([[1, 2], [3, 6]]) == VarianceComponents(4.0, 1.5, 1.0)


def test_negative_components_are_zero() -> None:
    """[[1, 2], [6, 5]]: MSp = 0 < MSe = 1; and the transpose."""
    assert variance_components([[1, 2], [6, 5]]) == VarianceComponents(7.5, 0.0, 1.0)
    assert variance_components([[1, 6], [2, 5]]) == VarianceComponents(0.0, 7.5, 1.0)


def test_components_need_two_runs() -> None:
    """A wholly missing run does not count."""
    with pytest.raises(ValueError, match="train another seed"):
        variance_components([[1.0, 2.0], [np.nan, np.nan]])


def test_power_of_seed_noise_alone_is_the_t_tests() -> None:
    """Seed variance only, a family of one: one-sample t over S = 6 runs, by scipy's own test.

    20 000 and 2000 replicates: 4 standard errors of the difference are at most 0.047.
    """
    got = power(Question(VarianceComponents(1.0, 0.0, 0.0), 1.2), 6, 50)
    sample = np.random.default_rng(0).normal(1.2, 1, (20_000, 6))
    rejected = np.mean(np.asarray(stats.ttest_1samp(sample, 0, axis=1).pvalue) < 0.05)
    assert got == pytest.approx(rejected, abs=0.047)


@pytest.mark.parametrize("kind", ["difference", "equivalence"])
def test_power_is_that_of_the_verdicts(kind: str) -> None:
    """Whole matrices, decided by judge, find it as often as the formula says.

    Three comparisons that share no arm, 4 seeds, 40 prompts; 300 experiments of one decided
    comparison each: 4 standard errors are 0.12.
    """
    components = VarianceComponents(seed=0.3, prompt=4.0, residual=3.0)
    size = 1.9 if kind == "difference" else 1.6
    rng = np.random.default_rng(7)
    words = []
    for _ in range(300):
        family = [
            rng.normal(0, 0.3**0.5, (4, 1)) + rng.normal(0, 2, 40) + rng.normal(0, 3**0.5, (4, 40))
            for _ in range(3)
        ]
        if kind == "difference":
            words.append(judge([family[0] + size, *family[1:]], [0.0] * 3)[0].verdict.word)
        else:
            words.append(judge(family, [0.0] * 3, bound=size)[0].verdict.word)
    found = np.mean([word == ("helps" if kind == "difference" else "equivalent") for word in words])
    question = Question(components, size, kind, family=3, independent=3.0)  # type: ignore[arg-type]
    assert 0.4 < found < 0.97
    assert power(question, 4, 40) == pytest.approx(found, abs=0.12)


def test_power_limits() -> None:
    """Two seeds find nothing; without noise a difference is certain, as is a huge one."""
    assert power(QUESTION, 2, 500) == power(QUESTION, 1, 500) == 0
    assert power(dataclasses.replace(QUESTION, size=100.0), 5, 500) == 1
    assert power(dataclasses.replace(QUESTION, size=1e-9), 5, 500) < 0.06
    assert power(Question(VarianceComponents(0.0, 0.0, 0.0), 0.1), 3, 10) == 1


def test_power_rises_with_seeds_prompts_and_the_worth_of_the_family() -> None:
    """Both are bought to gain power; a correction costs some, what the family knows wins some."""
    by_seeds = [power(QUESTION, s, 500) for s in range(3, 12)]
    by_prompts = [power(QUESTION, 5, p) for p in (50, 100, 300, 500, 5000)]
    assert (np.diff(by_seeds) > 0).all()
    assert (np.diff(by_prompts) > 0).all()
    assert by_seeds[-1] > by_prompts[-1]
    six = dataclasses.replace(QUESTION, family=6)
    assert power(six, 4, 500) < power(dataclasses.replace(six, independent=3.0), 4, 500)
    assert power(six, 4, 500) < power(QUESTION, 4, 500)


def test_seeds_needed_is_the_first_number() -> None:
    """The number below falls short; out of reach it is None."""
    needed = seeds_needed(QUESTION, 500)
    assert needed is not None
    assert power(QUESTION, needed - 1, 500) < 0.8 <= power(QUESTION, needed, 500)
    hopeless = Question(VarianceComponents(0.0, 1.0, 0.01), 0.1)
    assert seeds_needed(hopeless, 20, most=9) is None
    assert seeds_needed(dataclasses.replace(QUESTION, size=100.0), 500) == 3


def test_prompts_needed_is_the_first_number() -> None:
    """Here seed noise is small enough; with the typical one 3 seeds never do."""
    easy = dataclasses.replace(QUESTION, components=dataclasses.replace(TYPICAL, seed=0.0002))
    needed = prompts_needed(easy, 6)
    assert needed is not None
    assert power(easy, 6, needed - 1) < 0.8 <= power(easy, 6, needed)
    assert prompts_needed(QUESTION, 3) is None


def test_share_question_asks_about_the_contrasts() -> None:
    """Of D - G/5 and D + G/5 the larger variances; the size is a fifth of the gain's mean."""
    rng = np.random.default_rng(3)
    d, gain = rng.normal(0, 1, (4, 30)), rng.normal(2, 1, (4, 30))
    worth = seed_noise([d, gain]).df / 3
    got = share_question(d, gain, 0.2, independent=worth)
    either = [variance_components(d - gain / 5), variance_components(d + gain / 5)]
    assert got.components.prompt == max(c.prompt for c in either)
    assert (got.size, got.kind) == (pytest.approx(gain.mean() / 5), "equivalence")
    with pytest.raises(ValueError, match="finite size > 0"):
        share_question(d, -gain, 0.2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": float("nan")}, "finite size > 0"),
        ({"size": 0.0}, "finite size > 0"),
        ({"alpha": 5.0}, "5 % as 0.05"),
        ({"components": VarianceComponents(-0.1, 0.0, 1.0)}, "variances >= 0"),
        ({"independent": 2.0}, "independent <= family"),
    ],
)
def test_question_refuses(changed: dict[str, object], message: str) -> None:
    """Each argument out of range."""
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(QUESTION, **changed)  # type: ignore[arg-type]


def test_designs_out_of_range() -> None:
    """No seed, one prompt, a percentage, or no room to search."""
    with pytest.raises(ValueError, match="at least 1 seed"):
        power(QUESTION, 0, 500)
    with pytest.raises(ValueError, match="2 prompts"):
        power(QUESTION, 3, 1)
    with pytest.raises(ValueError, match=r"write 80 % as 0\.8"):
        seeds_needed(QUESTION, 500, target=80)
    with pytest.raises(ValueError, match="most >= 3"):
        seeds_needed(QUESTION, 500, most=2)
