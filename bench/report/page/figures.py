"""Figures as parts of a page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.figures import FIGURES
from bench.report.figures.folder import render
from bench.report.figures.source import Source
from bench.report.figures.style import GREY

_HEAD = re.compile(r'^.*?<svg [^>]*?(viewBox="[^"]*")[^>]*>', re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_ID = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True)
class Inlined:
    """A figure on a page."""

    title: str
    caption: str
    svg: str
    """One element; its ids are like no others on the page, its size and grey are the page's."""


@dataclass(frozen=True)
class Drawings:
    """All figures of a result folder."""

    figures: tuple[Inlined, ...]
    absent: tuple[str, ...]
    """Of each that was not drawn its title, and why."""


def inlined(svg: bytes, prefix: str) -> str:
    """An SVG file of matplotlib as an element of HTML, whose ids begin with ``prefix``."""
    body, heads = _HEAD.subn(r'<svg xmlns="http://www.w3.org/2000/svg" \1>', svg.decode(), count=1)
    assert heads == 1
    named = _ID.sub(rf"\g<1>{prefix}", _METADATA.sub("", body)).strip()
    return named.replace(GREY.lower(), "currentColor")


def drawings(sources: Sequence[Source], prefix: str) -> Drawings:
    """The figures of one result folder, or those that several have together."""
    gallery, titles = render(sources), {figure.name: figure.title for figure in FIGURES}
    return Drawings(
        tuple(
            Inlined(figure.title, figure.caption, inlined(figure.svg, f"{prefix}f{number}-"))
            for number, figure in enumerate(gallery.figures)
        ),
        tuple(f"{titles[name]}: {why}." for name, why in gallery.skipped.items()),
    )
