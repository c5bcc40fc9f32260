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
from bench.report.folder import report
from bench.report.page import settings, words
from bench.report.page.grid import Row, grid
from bench.report.page.pairs import OUTSTANDING, SCORES, Outstanding, browsed, heads, outstanding
from bench.report.page.pictures import BYTES, Pictures, pictures
from bench.report.summary import summary
from bench.results.analysis import Results, analyse, score_cubes
from bench.results.files import MANIFEST, read_manifest, read_scores
from bench.results.manifest import Manifest
from trainers.errors import UserError


@dataclass(frozen=True)
class Shown:
    """A result folder as the page shows it."""

    key: str
    """What the ids of its parts begin with."""
    name: str
    results: Results
    manifest: Manifest | None
    figures: tuple[Any, ...]
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
    names = _names(folders)
    shown = [_shown(folder, f"r{n}", names[n], len(folders)) for n, folder in enumerate(folders)]
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        title=shown[0].results.protocol.title if len(shown) == 1 else f"{len(shown)} results",
        shown=shown,
        compared=_compared(shown),
        style=_text("page.css"),
        script=script,
        digest=digest,
    )  # fmt: skip


def _names(folders: Sequence[Path]) -> list[str]:
    """What folders are called: equal names are numbered. Paths would tell of a machine."""
    names = [folder.resolve().name for folder in folders]
    return [f"{name} ({n + 1})" if names.count(name) > 1 else name for n, name in enumerate(names)]


def _shown(folder: Path, key: str, name: str, shares: int) -> Shown:
    """Read and analyse a folder; room for pictures and scores is shared among all."""
    scores, protocol = read_scores(folder)
    results, found = analyse(scores, protocol), score_cubes(scores, protocol)
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    images = pictures(folder, protocol, f"{key}p", BYTES // shares)
    data = browsed(results, found, images, SCORES // shares)
    rows = grid(results, found, images, len(data["prompts"]))
    stands_out = outstanding(results, found, images)
    return Shown(key, name, results, manifest, (), images, tuple(rows), tuple(stands_out), data)


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
        "heads": heads,
        "most": OUTSTANDING,
        "report": report,
        "summary": summary,
        "words": words,
        "settings": settings,
    }
    return found


def _text(name: str) -> str:
    return (files("bench.report") / "page" / name).read_text(encoding="utf-8")
