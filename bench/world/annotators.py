"""Simulated annotators: Bradley-Terry over the oracle, with slips of the hand and ties."""

import numpy as np

TEMPERATURE = 0.06
"""Oracle difference at which the better image wins with odds e : 1."""
FLIP_RATE = 0.05
"""Share of labels that are turned round by mistake."""
TIE_WIDTH = 0.01
"""Oracle differences below this are called a tie."""


def label(score_0: float, score_1: float, rng: np.random.Generator) -> float:
    """Label of image 0 as in Pick-a-Pic: 1 preferred, 0 not preferred, 0.5 tie.

    Args:
        score_0: Oracle score of image 0, in [0, 1].
        score_1: Oracle score of image 1, in [0, 1].
        rng: Source of the annotator's noise; two draws are always taken.
    """
    choice, slip = rng.random(2)
    difference = score_0 - score_1
    if abs(difference) < TIE_WIDTH:
        return 0.5
    prefers = choice < 1 / (1 + np.exp(-difference / TEMPERATURE))
    return float(prefers != (slip < FLIP_RATE))
