"""The page of results: what stands on it, that nothing breaks out of it, and that bytes repeat."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.cli import run
from bench.report.figures.source import read_source
from bench.report.page import pictures
from bench.report.page.figures import inlined
from bench.report.page.pairs import disagreement, gains
from bench.report.page.render import page
from bench.report.page.settings import side_by_side
from bench.report.summary import summary
from bench.results.files import read_results
from bench.results.protocol import Protocol

MINI = Path(__file__).parents[4] / "results/first-world"
VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page, every tag closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: list[Any] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and data.lstrip().startswith("{"):
            self.data.append(json.loads(data))
        elif not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def test_the_committed_evidence_has_a_page(tmp_path: Path) -> None:
    shown = Page(page([MINI]))
    for sentence in summary(read_results(MINI)):
        assert sentence in shown.texts
    said = " ".join(shown.texts)
    assert "does A help DPO?" in said
    assert "bench ablate mini-evidence" in said
    assert len(shown.data) == 1
    assert len(shown.data[0]["scores"]) == 6


def test_what_a_folder_lacks_is_said(result_folder: Callable[..., Path]) -> None:
    said = " ".join(Page(page([result_folder()])).texts)
    assert "The folder holds no pictures." in said
    assert "Training curves: the folder holds no steps." in said
    assert "The folder has no manifest" in said


def test_bytes_repeat_and_check_finds_a_change(
    pictured: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictured()
    assert run(["report", str(folder), "--check"]) == 1
    assert "report.html is not the page that the results give" in capsys.readouterr().err
    assert run(["report", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == page([folder]).encode()
    assert run(["report", str(folder), "--check"]) == 0
    (folder / "report.html").write_text("<p>other</p>")
    assert run(["report", str(folder), "--check"]) == 1


def test_a_page_does_not_say_where_its_folder_lies(pictured: Callable[..., Path]) -> None:
    folder = pictured()
    assert str(folder.parent) not in page([folder])


def test_prompts_and_names_stay_texts(
    pictured: Callable[..., Path], hostile: tuple[str, ...]
) -> None:
    text = page([pictured()])
    shown = Page(text)
    assert [tag for tag, _ in shown.tags].count("script") == 2  # The page's own, and its data.
    assert not any(name.startswith("on") for _, found in shown.tags for name in found)
    assert shown.data[0]["prompts"][: len(hostile)] == [*hostile]
    assert any(hostile[0] in found for found in shown.texts)
    assert shown.data[0]["arms"][2]["name"].startswith("DPO</td><script>")
    assert {tag for tag, _ in shown.tags}.isdisjoint({"img", "iframe", "link", "object", "base"})


def test_nothing_is_fetched(pictured: Callable[..., Path]) -> None:
    """References are places on the page, or data; a prompt may name an address as a text."""
    shown = Page(page([pictured()]))
    for _, found in shown.tags:
        for name in ("src", "href", "action", "data", "xlink:href", "srcset"):
            value = found.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), value
    policy = next(f["content"] for tag, f in shown.tags if "http-equiv" in f)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    style = (Path(pictures.__file__).parent / "page.css").read_text()
    assert not re.search(r"url\(|@import", style)


def test_each_picture_is_on_the_page_once_and_in_its_place(pictured: Callable[..., Path]) -> None:
    shown = Page(page([pictured()]))
    images = [found for tag, found in shown.tags if tag == "image"]
    assert len({found["href"] for found in images}) == len(images) == 4 * (1 + 2 * 3)
    labels = {f["aria-label"] for tag, f in shown.tags if tag == "svg" and "aria-label" in f}
    assert len([label for label in labels if label and label.startswith("base: ")]) == 4
    own = shown.data[0]["pictures"]
    assert [len(found) for found in own] == [4, 12, 12]
    assert [int(place) for place in own[1]] == [20 * s + p for s in range(3) for p in range(4)]


def test_pictures_that_do_not_fit_are_counted(
    pictured: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictured()
    each = len(Page(page([folder])).tags)
    one = len(next(f["href"] or "" for t, f in Page(page([folder])).tags if t == "image"))
    # Room for two whole prompts of three arms, and some more.
    monkeypatch.setattr("bench.report.page.render.PICTURES", one * 8)
    shown = Page(page([folder]))
    assert len(shown.tags) < each
    assert len([tag for tag, _ in shown.tags if tag == "image"]) == 6
    assert any("Pictures of 2 more lie in the folder" in text for text in shown.texts)


def test_a_damaged_picture_is_one_line(
    pictured: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictured()
    sorted((folder / "pictures").iterdir())[0].write_bytes(b"no picture")
    assert run(["report", str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is damaged" in told
    assert not (folder / "report.html").exists()


def test_the_browser_has_as_many_prompts_as_fit(
    result_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = result_folder()
    monkeypatch.setattr("bench.report.page.render.SCORES", 7 * 2 * 5 + 3)  # Of 5 prompts.
    shown = Page(page([folder]))
    assert len(shown.data[0]["prompts"]) == 5
    assert any("The first 5 of 20 prompts" in text for text in shown.texts)


def test_scores_of_the_browser_are_those_of_the_folder(result_folder: Callable[..., Path]) -> None:
    folder = result_folder()
    scores = pd.read_parquet(folder / "scores.parquet")
    data = Page(page([folder])).data[0]
    for place, reward in enumerate(("truth", "flaws")):
        own = scores[(scores["reward"] == reward) & (scores["arm"] == "DPO")]["score"]
        digits = data["rewards"][place]["digits"]
        assert data["scores"][place][1] == [round(v * 10**digits) for v in own]
    assert [reward["sign"] for reward in data["rewards"]] == [1, -1]


def test_differences_are_above_0_where_the_arm_is_better(
    result_folder: Callable[..., Path],
    make_protocol: Callable[..., Protocol],
    make_scores: Callable[..., pd.DataFrame],
) -> None:
    protocol = make_protocol()
    folder = result_folder(protocol, make_scores(protocol, {"DPO": 0.25}))
    found = gains(read_source(folder), protocol.comparisons[0])
    assert np.allclose(found["truth"], 0.25)
    assert np.allclose(found["flaws"], -0.25)


def test_a_figure_keeps_its_references_and_shares_no_id() -> None:
    svg = (
        b'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "x" "http://www.w3.org/x.dtd">\n'
        b'<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" viewBox="0 0 9 9">'
        b'<metadata><a href="http://creativecommons.org"/></metadata>'
        b'<path id="m1" style="fill: #767676"/>'
        b'<g clip-path="url(#m1)"><use xlink:href="#m1"/></g></svg>\n'
    )
    assert inlined(svg, "r0f1-") == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
        '<path id="r0f1-m1" style="fill: currentColor"/>'
        '<g clip-path="url(#r0f1-m1)"><use xlink:href="#r0f1-m1"/></g></svg>'
    )


def test_disagreement_is_in_standard_deviations() -> None:
    """Worked out by hand: deviations are 2 and 1; the second pair is of one mind."""
    first = np.array([[[2.0], [2.0], [-2.0], [-2.0]]])
    second = np.array([[[-1.0], [1.0], [1.0], [np.nan]]])
    second_spread = float(np.std([-1.0, 1.0, 1.0]))
    found = disagreement({"a": first, "b": second}).ravel()
    assert found[0] == pytest.approx(1 + 1 / second_spread)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(found[0])
    assert np.isnan(found[3])


def test_only_what_differs_stands_side_by_side() -> None:
    one = {"lr": 1e-3, "reference": {"name": "ema", "decay": 0.9}, "steps": 5}
    other = {"lr": 1e-3, "reference": {"name": "frozen"}, "steps": 5}
    table = side_by_side("?", {"a": one, "b": other})
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["reference.name", "ema", "frozen"],
        ["reference.decay", "0.9", "-"],
    ]
    assert side_by_side("?", {"a": one, "b": one}) is None


def test_several_folders_are_compared(
    pictured: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictured()
    assert run(["report", str(folder), str(MINI)]) == 1
    assert "--out" in capsys.readouterr().err
    assert run(["report", str(folder), str(folder), "--out", str(tmp_path / "two.html")]) == 1
    assert "twice" in capsys.readouterr().err
    assert run(["report", str(folder), str(MINI), "--out", str(tmp_path / "two.html")]) == 0
    shown = Page((tmp_path / "two.html").read_text())
    said = " ".join(shown.texts)
    assert "The same comparisons in each result" in said
    assert "prompts.sha256" in said
    ids = [found["id"] for _, found in shown.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert len(shown.data) == 2


@pytest.mark.parametrize("damage", ["missing", "scores"])
def test_what_is_no_result_is_one_line(
    result_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folder = result_folder()
    if damage == "missing":
        folder = folder / "nothing"
    else:
        (folder / "scores.parquet").write_bytes(b"?")
    assert run(["report", str(folder), "--out", str(folder.parent / "page.html")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("bench: ")
    assert told.count("\n") == 1
