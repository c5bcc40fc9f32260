"""Bradley-Terry strengths against closed forms, the likelihood and a truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from bench.stats import bradley_terry, strengths


def log_likelihood(theta: np.ndarray, wins: np.ndarray) -> float:
    """As Bradley and Terry have it, one tie of every two rows included."""
    wins = wins + 0.5 * (1 - np.eye(len(wins)))
    return float((wins * special.log_expit(theta[:, None] - theta)).sum())


@pytest.mark.parametrize(("won", "lost"), [(30.0, 10.0), (0.0, 25.0), (7.5, 7.5)])
def test_two_rows_in_closed_form(won: float, lost: float) -> None:
    """The log of the odds, with half a win more on both sides: finite where one never wins."""
    found = bradley_terry(np.array([[0.0, lost], [won, 0.0]]))
    assert found == pytest.approx([0.0, np.log((won + 0.5) / (lost + 0.5))])


def test_wins_that_follow_the_model_give_its_strengths() -> None:
    """Ties added are ties subtracted beforehand, so that the shares are exactly the model's."""
    theta = np.array([0.0, 1.2, -0.7, 0.3])
    wins = 100 * special.expit(theta[:, None] - theta) * (1 - np.eye(4))
    assert bradley_terry(wins - 0.5 * (1 - np.eye(4))) == pytest.approx(theta)


def test_it_is_where_a_general_optimiser_finds_the_maximum() -> None:
    wins = np.random.default_rng(2).integers(0, 40, (5, 5)) * (1.0 - np.eye(5))
    wins[1] = 0.0  # It never wins.
    found = bradley_terry(wins)
    best = optimize.minimize(
        lambda rest: -log_likelihood(np.append(0.0, rest), wins), np.zeros(4), tol=1e-12
    )
    assert found[1:] == pytest.approx(best.x, abs=1e-4)
    assert log_likelihood(found, wins) >= -best.fun - 1e-9


def test_many_tables_are_fitted_as_each_is() -> None:
    wins = np.random.default_rng(2).integers(0, 40, (3, 4, 4)) * (1.0 - np.eye(4))
    assert bradley_terry(wins) == pytest.approx(np.stack([bradley_terry(each) for each in wins]))


def test_strengths_of_scores_by_hand() -> None:
    """On 10 prompts the second row wins 6, ties 2 and loses 2: 7 of 10, and half a win each."""
    base = np.zeros((1, 10, 1))
    other = np.array([1.0] * 6 + [0.05, -0.05] + [-1.0] * 2).reshape(1, 10, 1)
    first, second = strengths([base, other], eps=0.05, seed=1)
    assert (first.value, first.low, first.high) == (0.0, 0.0, 0.0)
    assert second.value == pytest.approx(np.log(7.5 / 3.5))
    assert second.low < second.value < second.high


def test_images_and_seeds_of_a_prompt_are_one_meeting() -> None:
    """Scores repeated over images and seeds say no more: the bootstrap is over prompts."""
    rng = np.random.default_rng(4)
    rows = [rng.normal(0.3 * n, 1, (1, 60, 1)) for n in range(3)]
    repeated = [np.tile(row, (4, 1, 5)) for row in rows]
    for one, many in zip(strengths(rows, seed=1), strengths(repeated, seed=1), strict=True):
        assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))


def test_the_interval_is_that_of_the_log_odds() -> None:
    """Two rows, 500 prompts, no ties: the standard error is 1 / sqrt(n p (1 - p)); 1000 draws give
    each bound to 0.08 of it, and 0.3 of it are allowed."""
    rng = np.random.default_rng(4)
    won = rng.random(500) < 0.7
    rows = [np.zeros((1, 500, 1)), np.where(won, 1.0, -1.0).reshape(1, 500, 1)]
    found = strengths(rows, seed=1)[1]
    error = 1 / np.sqrt(500 * won.mean() * (1 - won.mean()))
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.3 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.3 * error)


def test_missing_meetings_are_left_out() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.normal(size=(2, 40, 1)), rng.normal(0.5, 1, (2, 40, 1))]
    holed = [row.copy() for row in rows]
    holed[0][:, 30:] = np.nan
    expected = strengths([row[:, :30] for row in rows], seed=1)[1].value
    assert strengths(holed, seed=1)[1].value == pytest.approx(expected)


def test_a_bad_level_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        strengths([np.zeros((1, 3, 1))] * 2, seed=1, confidence=95)
