"""Divergence by tenth of the timesteps, against updates alone (Kang et al. 2025, Figure 5).

The log has the reference's errors. Arms of one law of timesteps see the same pairs, noise and
timesteps, so that an arm whose reference stays the pretrained model gives that model's errors on
the very same draws; only where all their counts agree is the difference a divergence.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.report.figures import curves
from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.deciles import TENTHS, by_tenth, seed_mean
from bench.report.figures.source import Settings, Source, few, gated, updating, without
from bench.report.figures.style import GREY, looks, named, panels
from bench.results.analysis import Array

MOST = 8
KEYS = ["seed", "step"]


def draw(sources: Sequence[Source]) -> Drawn:
    """Each arm with an updated reference, in percent of the one with nothing else."""
    source = sources[0]
    if source.steps is None:
        raise Undrawn("the folder holds no steps")
    found = {arm: d for arm in source.settings if (d := _divergence(source, arm)) is not None}
    alone = _baseline(source, [*found])
    others = [
        arm
        for arm in found
        if alone and arm != alone and _alike(source, arm, alone, "timesteps.", "reference.")
    ]
    if alone is None or not others:
        raise Undrawn(
            "it takes two arms with an updated reference, one of them with nothing else, and for "
            "each an arm with a frozen one that sees the same timesteps"
        )
    whole = seed_mean(found[alone])
    others.sort(key=lambda arm: not _alike(source, arm, alone, "timesteps."))
    shown, more = few(others, MOST, "such arms")
    figure, (axes,) = panels(1, 1, 3.0)
    for arm, look in zip(shown, looks(len(shown)), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(whole > 0, 100 * seed_mean(found[arm]) / whole, np.nan)
        axes.plot(TENTHS, share, color=look.color, linestyle=look.linestyle, marker=look.marker,
                  label=named(arm))  # fmt: skip
    axes.axhline(100, color=GREY, linewidth=1, linestyle="--", label=named(alone))
    axes.set_xlim(0, 1)
    axes.set_xlabel("timestep / T (1: pure noise)")
    axes.set_title(f"divergence in % of that of {named(alone)}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Drawn(
        figure,
        "Divergence of the reference from the pretrained model by tenth of the timesteps, in "
        f"percent of that of {alone}, whose reference is updated and nothing else changed. On "
        "the preferred images of all training batches, means over training seeds; no value where "
        f"that of {alone} is not above 0.{more} {source.tail()}",
    )


def _baseline(source: Source, arms: Sequence[str]) -> str | None:
    """An arm with an updated reference and nothing else.

    Of several the one without a gate, as in the paper, and with most arms beside it that differ in
    the timesteps alone.
    """
    alone = [arm for arm in arms if _plain(source, arm)]
    kin = {arm: sum(_alike(source, arm, other, "timesteps.") for other in arms) for arm in alone}
    alone.sort(key=lambda arm: (gated(source.settings[arm]), -kin[arm]))
    return alone[0] if alone else None


def _alike(source: Source, arm: str, other: str, *keys: str) -> bool:
    """Whether two arms differ in these settings at most."""
    return without(source.settings[arm], *keys) == without(source.settings[other], *keys)


def _plain(source: Source, arm: str) -> bool:
    """Whether an arm differs from one with a frozen reference in the reference alone."""
    own = without(source.settings[arm], "reference.")
    frozen = [settings for settings in source.settings.values() if not updating(settings)]
    constant = own.get("timesteps.scale.name") == "constant"
    return constant and any(without(settings, "reference.") == own for settings in frozen)


def _divergence(source: Source, arm: str) -> Array | None:
    """``[S, 10]``; None where the reference stays, or no arm has the pretrained model's errors."""
    assert source.steps is not None
    if not updating(source.settings[arm]):
        return None
    rows = curves.of_arm(source, arm)
    drawn = _drawing(source.settings[arm])
    for other, settings in source.settings.items():
        if updating(settings) or _drawing(settings) != drawn:
            continue
        both = rows.merge(curves.of_arm(source, other), on=KEYS, suffixes=("", "_frozen"))
        if len(both) == len(rows) > 0 and _same_draws(both):
            worse = _winners(both, "") - _winners(both, "_frozen")
            return by_tenth(both, worse, curves.sums(both, "decile_winners"))
    return None


def _drawing(settings: Settings) -> Settings:
    """What decides which pairs and timesteps a step draws; the counts tell whether that is all."""
    kept = ("batch_size", "data", "timesteps.law")
    return {key: value for key, value in settings.items() if key.startswith(kept)}


def _winners(both: pd.DataFrame, side: str) -> Array:
    return curves.sums(both, f"decile_reference_error_winner{side}")


def _same_draws(both: pd.DataFrame) -> bool:
    counts = (curves.sums(both, f"decile_winners{side}") for side in ("", "_frozen"))
    first, second = counts
    return bool(np.array_equal(first, second) and not np.isnan(_winners(both, "_frozen")).any())


FIGURE = Figure("divergence-deciles", "Divergence along the timesteps", draw)
