"""What a figure is: a name, a title, and a function of result folders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.figure

from bench.report.figures.source import Source


class Undrawn(Exception):
    """The data do not hold what a figure shows; the message says what that is."""


class Drawn(NamedTuple):
    """A figure and its caption."""

    figure: matplotlib.figure.Figure
    caption: str


@dataclass(frozen=True)
class Figure:
    """One kind of figure."""

    name: str
    """Of its files."""
    title: str
    draw: Callable[[Sequence[Source]], Drawn]
    """From one folder, or from several where it ``combines`` them; raises :class:`Undrawn`."""
    combines: bool = False
