"""The page: what it shows of result folders, and the templates that place it."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.report import html
from bench.report.cells import Table
from bench.report.figures.source import Source, read_source
from bench.report.folder import report
from bench.report.page import settings, words
from bench.report.page.browser import browsed
from bench.report.page.figures import Drawings, drawings
from bench.report.page.grid import Row, grid
from bench.report.page.pairs import OUTSTANDING, Duels, Outstanding
from bench.report.page.pictures import Pictures, pictures
from bench.report.summary import summary
from bench.results.analysis import Results
from bench.results.files import MANIFEST, read_manifest
from bench.results.manifest import Manifest
from trainers.errors import UserError

PICTURES, SCORES, COMPARISONS = 4_000_000, 400_000, 40
"""What a page holds at most: characters of pictures, scores to be searched (about 2 MB), and
comparisons of which it shows what stands out, all shared among its folders."""


@dataclass(frozen=True)
class Shown:
    """A result folder as the page shows it."""

    key: str
    """What the ids of its parts begin with."""
    name: str
    results: Results
    manifest: Manifest | None
    drawings: Drawings
    pictures: Pictures
    grid: tuple[Row, ...]
    outstanding: tuple[Outstanding, ...]
    data: dict[str, Any]
    """What is browsed."""


def page(folders: Sequence[Path]) -> str:
    """One page of all that is known of result folders: a pure function of their files.

    Raises:
        UserError: If one is no result folder, or damaged; or if two are one.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("expected different folders, got one twice: give each once")
    sources = [read_source(folder) for folder in folders]
    shown = [
        _shown(folder, source, f"r{n}", name, len(folders))
        for n, (folder, source, name) in enumerate(
            zip(folders, sources, _names(folders), strict=True)
        )
    ]
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        title=shown[0].results.protocol.title if len(shown) == 1 else f"{len(shown)} results",
        shown=shown,
        compared=_compared(shown),
        together=drawings(sources, "all").figures if len(shown) > 1 else (),
        style=_text("page.css"),
        script=script,
        digest=digest,
    )  # fmt: skip


def _names(folders: Sequence[Path]) -> list[str]:
    """What folders are called: equal names are numbered. Paths would tell of a machine."""
    names = [folder.resolve().name for folder in folders]
    return [f"{name} ({n + 1})" if names.count(name) > 1 else name for n, name in enumerate(names)]


def _shown(folder: Path, source: Source, key: str, name: str, shares: int) -> Shown:
    """All of one of ``shares`` folders, among which room is shared."""
    results = source.results
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    images = pictures(folder, results.protocol, f"{key}p", PICTURES // shares)
    data = browsed(source, images, SCORES // shares)
    told = results.protocol.comparisons[: max(1, COMPARISONS // shares)]
    return Shown(
        key=key,
        name=name,
        results=results,
        manifest=manifest,
        drawings=drawings([source], key),
        pictures=images,
        grid=tuple(grid(source, images, len(data["prompts"]))),
        outstanding=tuple(Duels(source, images, c).outstanding() for c in told),
        data=data,
    )


def _compared(shown: Sequence[Shown]) -> list[Table]:
    """Several results beside each other; nothing of one."""
    if len(shown) == 1:
        return []
    results = {one.name: one.results for one in shown}
    every = {one.name: settings.of_folder(one.results.protocol, one.manifest) for one in shown}
    differing = settings.side_by_side("Settings in which the results differ", every)
    return [words.side_by_side(results), *([] if differing is None else [differing])]


@cache
def _environment() -> Environment:
    """Everything that is placed is escaped; what is not there is an error."""
    found = Environment(
        loader=PackageLoader("bench.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    found.globals |= {
        "drawn": html.table,
        "most": OUTSTANDING,
        "report": report,
        "summary": summary,
        "words": words,
        "settings": settings,
    }
    return found


def _text(name: str) -> str:
    return (files("bench.report") / "page" / name).read_text(encoding="utf-8")
