"""Figures: pure functions of committed files, one module each. To add one, name it here."""

from bench.report.figures import (
    agreement,
    deciles,
    divergence,
    divergence_deciles,
    gain_map,
    intervals,
    prompts,
    sensitivity,
    tau,
    training,
)
from bench.report.figures.base import Figure

FIGURES: tuple[Figure, ...] = (
    intervals.FIGURE,
    prompts.FIGURE,
    agreement.FIGURE,
    training.FIGURE,
    divergence.FIGURE,
    deciles.FIGURE,
    divergence_deciles.FIGURE,
    tau.FIGURE,
    sensitivity.FIGURE,
    gain_map.FIGURE,
)
"""In the order in which they are shown."""
