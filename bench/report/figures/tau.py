"""Score against tau with and without the gate (Kang et al. 2025, Figure 4)."""

from collections.abc import Sequence

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.sensitivity import Line, numbers, plot_lines
from bench.report.figures.source import Source, alike, few, gated, told, updating, without
from bench.report.figures.style import looks, named, panels

TAU = "reference.tau"
MOST = 8


def draw(sources: Sequence[Source]) -> Drawn:
    """Differences with the arm whose reference stays, for arms that differ in tau alone."""
    source = sources[0]
    settings = {arm: own for arm, own in source.settings.items() if updating(own) and TAU in own}
    groups = [group for group in alike(settings, TAU) if len(numbers(source, TAU, group)) > 1]
    lines = [(group, off) for group in groups if (off := _frozen(source, group[0]))]
    if not lines:
        raise Undrawn("no arms differ in reference.tau alone, beside one with a frozen reference")
    lines, more = few(lines, MOST, "lines")
    figure, (axes,) = panels(1, 1, 2.8)
    firsts = [settings[group[0]] for group, _ in lines]
    drawn = []
    for (group, off), look in zip(lines, looks(len(lines)), strict=True):
        own = settings[group[0]]
        others = [without(s, TAU, "reference.delta") for s in firsts]
        words = told(without(own, TAU, "reference.delta"), others)
        gate = "with the gate" if gated(own) else "without the gate"
        look = look._replace(linestyle="-" if gated(own) else "--")
        drawn.append(Line(group, off, look, named(f"{gate}{', ' if words else ''}{words}")))
    plot_lines(axes, source, TAU, drawn)
    axes.set_xlabel("tau: optimiser steps between two updates of the reference")
    offs = ", ".join(dict.fromkeys(off for _, off in lines))
    axes.set_ylabel(f"{named(source.primary)} less that of\n{named(offs)}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return Drawn(
        figure,
        f"Mean {source.primary} score against tau, less that of {offs} with the frozen reference "
        f"(0), with {source.level()} intervals over training seeds and prompts, not adjusted for "
        f"their number.{more} {source.tail()}",
    )


def _frozen(source: Source, arm: str) -> str | None:
    """The arm that differs from this one in a reference that stays."""
    own = without(source.settings[arm], "reference.")
    for other, settings in source.settings.items():
        if not updating(settings) and without(settings, "reference.") == own:
            return other
    return None


FIGURE = Figure("tau", "Score against tau", draw)
