"""How every figure looks, and how it becomes bytes that repeat.

Colours are those of Okabe and Ito (2008) but for black and yellow, which are lost on a dark or a
white page; line styles and markers say the same without colour. Backgrounds are transparent, and
text is of a grey that is read on both.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.cells import one_line

GREY = "#767676"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 7.2
"""Inches: the text width of a paper."""
DPI = 150
LONGEST = 40
"""Characters of a name at most."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "text.parse_math": False,
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "axes.titlecolor": GREY,
    "axes.titlesize": 8, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": GREY, "grid.alpha": 0.2,
    "grid.linewidth": 0.6, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "legend.frameon": False, "legend.fontsize": 7,
    "legend.handlelength": 3.2, "figure.constrained_layout.use": True, "lines.linewidth": 1.3,
    "lines.markersize": 4, "svg.fonttype": "path", "svg.hashsalt": "dpo-bench",
    "axes.formatter.use_mathtext": False, "axes.formatter.limits": (-4, 5),
}  # fmt: skip


class Look(NamedTuple):
    """How one of several lines is told apart."""

    color: str
    linestyle: str
    marker: str


def looks(count: int) -> list[Look]:
    """One for each of so many lines: those of equal colour differ in line style and marker."""
    styles = (line for line in cycle(LINES) for _ in COLOURS)
    return [Look(*look) for look in islice(zip(cycle(COLOURS), styles, cycle(MARKERS)), count)]


@contextmanager
def styled() -> Iterator[None]:
    """Draw as said above, whatever a user has set; signs without a glyph are boxes."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def panels(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels, each ``height`` inches high, and these row by row."""
    figure = Figure(figsize=(WIDTH, rows * height))
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [*axes.flat]


def named(text: str) -> str:
    """A name as a figure shows it: on one line, not too long, and never taken for a private one."""
    line = "".join(c if c.isprintable() else "?" for c in one_line(text))
    line = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return f" {line}" if line.startswith("_") else line


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG without date and version."""
    return _saved(figure, "svg", {"Date": None, "Creator": None})


def to_png(figure: Figure) -> bytes:
    """The figure as PNG with ``DPI`` dots per inch."""
    return _saved(figure, "png", {"Software": None})


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=DPI, metadata=metadata)
    return stream.getvalue()
