"""Divergence and margin against steps, with and without the gate (Kang et al. 2025, Figure 1b)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from bench.report.figures import curves
from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, few, gated, updating
from bench.report.figures.style import GREY, Look, looks, named, panels
from trainers.steps import EVENT

MOST, FROZEN = 6, 2


def draw(sources: Sequence[Source]) -> Drawn:
    """References that follow the policy, and the policy itself where the reference stays."""
    source = sources[0]
    if source.steps is None:
        raise Undrawn("the folder holds no steps")
    measured = source.steps.loc[source.steps["divergence"].notna(), "arm"]
    followed = [arm for arm in source.settings if arm in {*measured}]
    if not followed:
        raise Undrawn("no arm has a reference that follows the policy and is measured")
    followed, more = few(followed, MOST, "such arms")
    logged = {*source.steps["arm"]}
    still = [a for a, s in source.settings.items() if not updating(s) and a in logged][:FROZEN]
    figure, (left, right) = panels(1, 2, 2.9)
    for arm, look in zip([*followed, *still], looks(len(followed) + len(still)), strict=True):
        rows, own = curves.of_arm(source, arm), source.settings[arm]
        line = ":" if arm in still else "-" if gated(own) else "--"
        look = look._replace(linestyle=line)
        if arm in still:
            found = curves.curve(rows, rows["error_winner"] - rows["reference_error_winner"])
            if found is not None:
                curves.plot(left, found, look, named(arm))
        else:
            _reference(left, source, arm, look)
        u = 0.5 * own.get("objective.beta", 2.0) * rows["margin"]
        if (found := curves.curve(rows, u)) is not None:
            curves.plot(right, found, look, named(arm))
    deltas = [source.settings[arm].get("reference.delta") for arm in followed]
    for delta in dict.fromkeys(delta for delta in deltas if delta is not None):
        left.axhline(delta, color=GREY, linewidth=0.8)
        left.annotate(f"delta {delta:g}", (1, delta), xycoords=("axes fraction", "data"),
                      va="bottom", ha="right", fontsize=7)  # fmt: skip
    left.set_title("divergence from the pretrained model")
    right.set_title("margin x beta / 2")
    for panel in (left, right):
        panel.set_xlabel("optimiser steps")
        panel.axhline(0, color=GREY, linewidth=0.8)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return Drawn(
        figure,
        "Left: by how much the reference denoises preferred images worse than the pretrained model "
        "(per element), by what was measured at its last update; crosses: what the gate refused. "
        "Solid: with the gate; dashed: without; dotted: of a frozen reference, the trained model. "
        "Right: what the objective sees, lambda aside. Means over training seeds, bands from the "
        f"lowest to the highest.{more} {source.tail()}",
    )


def _reference(axes: Axes, source: Source, arm: str, look: Look) -> None:
    """The divergence of the reference that an arm has, step by step, and what the gate refused."""
    rows = curves.of_arm(source, arm).sort_values(["seed", "step"])
    first_over = source.settings[arm].get("reference.keep") == "first_over"
    taken = rows[EVENT].eq("update") | (rows[EVENT].eq("freeze") & first_over)
    held = rows["divergence"].where(taken).mask(rows[EVENT].eq("reinit"), 0.0)
    held = held.groupby(rows["seed"]).ffill().fillna(0.0)
    if (found := curves.curve(rows, held)) is not None:
        curves.plot(axes, found, look, named(arm), markers=True)
    refused = rows[rows["divergence"].notna() & ~rows[EVENT].eq("update")]
    axes.plot(np.asarray(refused["step"]), np.asarray(refused["divergence"]), "x",
              color=look.color, markersize=3.5)  # fmt: skip


FIGURE = Figure("divergence", "Divergence and margin against steps", draw)
