"""Every declared comparison with its interval and its verdict."""

from collections.abc import Sequence

from bench.report.figures.base import Drawn, Figure, Undrawn
from bench.report.figures.source import Source, few
from bench.report.figures.style import COLOURS, GREY, named, panels
from bench.stats import VerdictWord

MOST = 60
MARKS: dict[VerdictWord, tuple[str, str]] = {
    "helps": ("^", COLOURS[2]),
    "hurts": ("v", COLOURS[1]),
    "equivalent": ("s", COLOURS[0]),
    "inconclusive": ("o", GREY),
    "conditional": ("D", COLOURS[4]),
    "blocked": ("X", COLOURS[3]),
}
"""Marker and colour of each verdict."""


def draw(sources: Sequence[Source]) -> Drawn:
    """Differences on the primary reward, one row each, in the order of the tables."""
    source = sources[0]
    results, primary = source.results, source.primary
    there = [f for f in results.comparisons if f.contrasts[primary] is not None]
    if not there:
        raise Undrawn("no comparison has enough scores")
    shown, more = few(there, MOST, "comparisons")
    figure, (axes,) = panels(1, 1, 0.9 + 0.2 * len(shown))
    for place, finding in enumerate(shown):
        i = finding.contrasts[primary].interval
        marker, colour = MARKS[finding.verdict]
        axes.plot([i.low, i.high], [place, place], color=colour, linewidth=1.6)
        axes.plot([i.mean], [place], marker=marker, color=colour, markersize=5.5)
        axes.annotate(finding.verdict, (1.01, place), xycoords=("axes fraction", "data"),
                      va="center", color=colour, fontsize=7)  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=0.8)
    size = _bound(source)
    for edge in (-size, size) if size else ():
        axes.axvline(edge, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(shown)), [named(f.comparison.name) for f in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(f"difference of {named(primary)} (positive: the first is better)")
    bound = " Dotted: the declared bound of equivalence" if size else ""
    if size and results.protocol.statistics.bound is None:
        bound += ", at the gain that was measured"
    return Drawn(
        figure,
        f"Paired differences of the mean {primary} score with their {source.level()} intervals "
        "over training seeds and prompts, seed noise moderated over the family, not adjusted for "
        f"the number of comparisons; verdicts by Holm.{bound}{'.' if bound else ''}{more} "
        f"{source.tail()}",
    )


def _bound(source: Source) -> float:
    """The bound of equivalence in units of the primary reward; 0 without one."""
    declared = source.results.protocol.statistics
    if declared.bound is not None:
        return declared.bound
    gains = {f.comparison.name: f.contrasts[source.primary] for f in source.results.comparisons}
    gain = gains.get(declared.gain or "")
    return declared.share * abs(gain.interval.mean) if gain and declared.share else 0.0


FIGURE = Figure("intervals", "Comparisons and their intervals", draw)
