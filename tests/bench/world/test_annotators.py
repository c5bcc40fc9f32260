"""Simulated annotators."""

import numpy as np

from bench.world.annotators import FLIP_RATE, TEMPERATURE, label


def test_labels_follow_bradley_terry_with_flips() -> None:
    """P(label = 1) = (1 - f) s + f (1 - s), with s the logistic of the difference."""
    rng = np.random.default_rng(0)
    difference = 0.05
    draws = np.array([label(0.5 + difference, 0.5, rng) for _ in range(20_000)])
    s = 1 / (1 + np.exp(-difference / TEMPERATURE))
    expected = (1 - FLIP_RATE) * s + FLIP_RATE * (1 - s)
    assert abs(draws.mean() - expected) < 4 * np.sqrt(0.25 / len(draws))


def test_close_scores_are_ties_and_take_the_same_draws() -> None:
    a, b = np.random.default_rng(3), np.random.default_rng(3)
    assert label(0.5, 0.505, a) == 0.5
    label(0.9, 0.1, b)
    assert a.random() == b.random()
