"""Figures as files: what is written beside a result, and whether it is what the result gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

from bench.report.figures import FIGURES
from bench.report.figures.base import Undrawn
from bench.report.figures.source import Source
from bench.report.figures.style import styled, to_png, to_svg
from trainers.errors import UserError
from trainers.files import as_json, write_bytes
from trainers.input.paths import is_regular
from trainers.input.text import read_json

FIGURES_FOLDER = "figures"
"""Within a result folder."""
INDEX = "figures.json"
"""Title, caption and files of each figure, why others were not drawn, and matplotlib's version."""


class Rendered(NamedTuple):
    """A figure as it is stored."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes


class Gallery(NamedTuple):
    """What folders give."""

    figures: tuple[Rendered, ...]
    skipped: dict[str, str]
    """Why a figure is not drawn, by its name."""


def render(sources: Sequence[Source]) -> Gallery:
    """Every figure of one result folder; of several, those that combine them."""
    figures: list[Rendered] = []
    skipped: dict[str, str] = {}
    for kind in FIGURES:
        if len(sources) > 1 and not kind.combines:
            continue
        with styled():
            try:
                figure, caption = kind.draw(sources)
            except Undrawn as why:
                skipped[kind.name] = str(why)
                continue
            figures.append(Rendered(kind.name, kind.title, caption, to_svg(figure), to_png(figure)))
    return Gallery(tuple(figures), skipped)


def files(gallery: Gallery) -> dict[str, bytes]:
    """Names and bytes of what is stored of a gallery."""
    index: dict[str, Any] = {
        "matplotlib": matplotlib.__version__,
        "figures": [
            {"name": f.name, "title": f.title, "caption": f.caption, "svg": f"{f.name}.svg",
             "png": f"{f.name}.png"}
            for f in gallery.figures
        ],
        "skipped": [{"name": name, "why": why} for name, why in gallery.skipped.items()],
    }  # fmt: skip
    found = {INDEX: as_json(index).encode()}
    for figure in gallery.figures:
        found |= {f"{figure.name}.svg": figure.svg, f"{figure.name}.png": figure.png}
    return found


def write(folder: Path, gallery: Gallery) -> None:
    """Write a gallery; figures of before that are not in it are deleted."""
    found = files(gallery)
    for name in [f"{kind.name}.{suffix}" for kind in FIGURES for suffix in ("svg", "png")]:
        if name not in found:
            (folder / name).unlink(missing_ok=True)
    for name, data in found.items():
        write_bytes(folder / name, data)


def stale(folder: Path, gallery: Gallery) -> list[str]:
    """Files that are not what a gallery gives, byte for byte.

    Those that depend on matplotlib's version beyond the drawing, PNG and the index, are compared
    where it is the one that has written them.
    """
    same = _version(folder) == matplotlib.__version__
    return [
        name
        for name, data in files(gallery).items()
        if (same or name.endswith(".svg"))
        and not (is_regular(folder / name) and (folder / name).read_bytes() == data)
    ]


def _version(folder: Path) -> object:
    if not is_regular(folder / INDEX):
        return None
    try:
        index = read_json(folder / INDEX)
    except UserError:
        return matplotlib.__version__  # Damaged: it is compared, and differs.
    return index.get("matplotlib") if isinstance(index, dict) else matplotlib.__version__
