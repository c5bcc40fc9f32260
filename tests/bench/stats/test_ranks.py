"""Ranges of places: widest where nothing is shown, and wrong no more often than declared."""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats import SeedNoise, mean_squares, rank_ranges
from bench.stats.moderated import moderated_p
from bench.stats.ranks import _compared

RNG = np.random.default_rng(3)


def rows(effects: list[float], seeds: int, prompts: int, rng: np.random.Generator) -> np.ndarray:
    """Scores with effects of rows, a common effect of prompts, one of runs, and noise."""
    n = len(effects)
    run = 0.05 * rng.normal(size=(n, seeds, 1))
    noise = 0.3 * rng.normal(size=(n, seeds, prompts)) + 0.3 * rng.normal(size=(n, 1, prompts))
    return np.array(effects)[:, None, None] + rng.normal(size=prompts) + run + noise


def test_p_values_are_those_of_single_pairs() -> None:
    """One matrix product gives what the difference of every two rows gives by itself."""
    found = rows([0.0, 0.1, 0.0, 0.4], 4, 50, RNG)
    p, ahead = _compared(found)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    squares = [mean_squares(found[i] - found[j]) for i, j in pairs]
    ratio = float(np.mean([s.seed / s.residual for s in squares]))
    for i, j in pairs:
        alone = moderated_p(found[i] - found[j], SeedNoise(ratio, 3))
        assert p[i, j] == p[j, i] == pytest.approx(alone, rel=1e-9)
        assert ahead[i, j] == -ahead[j, i] == pytest.approx((found[i] - found[j]).mean())


def test_rows_far_apart_are_ordered_and_near_ones_share_places() -> None:
    found = rows([0.0, 5.0, 5.001, -5.0], 4, 100, RNG)
    assert rank_ranges([*found]) == [(3, 3), (1, 2), (1, 2), (4, 4)]


def test_identical_rows_share_their_places_and_constant_ones_are_ordered() -> None:
    row = rows([0.0], 3, 40, RNG)[0]
    assert rank_ranges([row, row, row - 1]) == [(1, 2), (1, 2), (3, 3)]


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_show_nothing(seeds: int) -> None:
    found = [*rows([0.0, 9.0], 4, 50, RNG), rows([99.0], seeds, 50, RNG)[0]]
    assert rank_ranges(found) == [(2, 3), (1, 2), (1, 3)]


def test_rows_of_other_numbers_of_seeds_are_compared_on_those_of_the_shorter() -> None:
    """The third row is above the first by three seeds; the fifth of the first is not looked at."""
    long = rows([0.0, 0.0], 5, 80, RNG)
    short = rows([4.0], 3, 80, RNG)[0]
    long[0, 4] += 1e3
    assert rank_ranges([*long, short])[2] == (1, 1)


def test_prompts_that_a_row_lacks_are_left_out() -> None:
    found = rows([0.0, 5.0], 3, 40, RNG)
    found[0, 1, 7] = np.nan
    found[1, :, 8] = np.inf
    kept = np.delete(found, [7, 8], axis=2)
    assert rank_ranges([*found]) == rank_ranges([*kept]) == [(2, 2), (1, 1)]
    found[0, 0, 1:] = np.nan
    assert rank_ranges([*found]) == [(1, 2), (1, 2)]


def test_no_rows_and_one_row() -> None:
    assert rank_ranges([]) == []
    assert rank_ranges([rows([1.0], 3, 9, RNG)[0]]) == [(1, 1)]


def test_rows_of_other_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="give every row the same prompts"):
        rank_ranges([np.zeros((3, 4)), np.zeros((3, 5))])


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_range_holds_the_true_place_as_often_as_declared(seeds: int) -> None:
    """400 boards of 5 rows, the first three of them equal in truth: of these any place from 1 to 3
    is true, so that a range is wrong if it leaves one of them out. At a level of 5 % at most 5 %
    of ranges may be wrong: 100 of 2000, and 4 standard errors of a binomial, 39, more; dependence
    within a board is allowed for by another factor, sqrt(5).
    """
    rng = np.random.default_rng(11)
    truth = [(1, 3)] * 3 + [(4, 4), (5, 5)]
    wrong = 0
    for _ in range(400):
        found = rank_ranges([*rows([0.2, 0.2, 0.2, 0.0, -0.2], seeds, 40, rng)])
        wrong += sum(
            not (best <= first and last <= worst)
            for (best, worst), (first, last) in zip(found, truth, strict=True)
        )
    assert wrong <= 100 + 39 * 5**0.5
