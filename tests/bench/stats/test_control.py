"""Controls of identical arms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.stats import crossed_interval, image_noise, training_noise

RNG = np.random.default_rng(0)


def test_image_noise_by_hand() -> None:
    """Differences [[1, -1], [3, 1]]: mean 1, mean square 12/4; the interval is the crossed one."""
    first, second = np.zeros((2, 2)), np.array([[1.0, -1.0], [3.0, 1.0]])
    got = image_noise(first, second, 0.9)
    assert got.interval == crossed_interval(second, 0.9)
    assert (got.interval.mean, got.spread) == pytest.approx((1, 3**0.5))


def test_image_noise_averages_images_and_drops_pairs() -> None:
    """Shape (pairs, P, K); a prompt without a complete pair leaves."""
    scores = RNG.normal(size=(2, 3, 5, 2))
    scores[0, 1, 4] = np.nan
    got = image_noise(*scores)
    d = (scores[1] - scores[0]).mean(axis=-1)[:, :4]
    assert got.interval.mean == pytest.approx(d.mean())
    assert got.spread == pytest.approx(np.sqrt((d**2).mean()))
    assert got.interval.n_missing == 1


def test_training_noise_takes_every_pair_once() -> None:
    """3 runs, 3 pairs, each Student's t over prompts; row 1 of 4 is a missing run."""
    scores = RNG.normal(size=(4, 20))
    scores[1] = np.nan
    got = training_noise(scores)
    assert [(p.first, p.second) for p in got.pairs] == [(0, 2), (0, 3), (2, 3)]
    d = scores[3] - scores[0]
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (got.pairs[1].interval.low, got.pairs[1].interval.high) == pytest.approx((low, high))
    assert all(p.interval.conditional for p in got.pairs)


def test_typical_difference_is_the_rms_of_the_pairs() -> None:
    """Row means 1, 2, 4: differences 1, 3, 2, mean square 14/3; chi-square on 2 df around it."""
    scores = np.array([[1.0], [2.0], [4.0]]) + np.array([-1.0, 0.0, 1.0])
    got = training_noise(scores)
    assert got.typical == pytest.approx((14 / 3) ** 0.5)
    assert got.typical == pytest.approx(np.sqrt(np.mean([p.interval.mean**2 for p in got.pairs])))
    assert got.low == pytest.approx((14 / 3 * 2 / stats.chi2.ppf(0.975, 2)) ** 0.5)
    assert got.high == pytest.approx((14 / 3 * 2 / stats.chi2.ppf(0.025, 2)) ** 0.5)


def test_typical_difference_covers_the_truth() -> None:
    """600 arms of 4 runs, sd 1 between runs, prompts shared: sqrt(2); 4 standard errors."""
    rng = np.random.default_rng(1)
    prompts = rng.normal(0, 3, 4)
    found = [training_noise(rng.normal(0, 1, (4, 1)) + prompts) for _ in range(600)]
    covered = np.mean([n.low <= 2**0.5 <= n.high for n in found])
    assert covered == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 600) ** 0.5)


def test_controls_refuse() -> None:
    """One run is no control; a percentage is no level."""
    with pytest.raises(ValueError, match="at least 2 training runs"):
        training_noise([[1.0, 2.0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match=r"write 95 % as 0\.95"):
        training_noise(np.eye(3), confidence=95)
