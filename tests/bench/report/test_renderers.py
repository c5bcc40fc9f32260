"""Every renderer shows the same cells, and no name can break out of its place."""

import csv as reader
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from bench.cli import run
from bench.cli.results import Format
from bench.report import csv, html, latex, markdown
from bench.report.boards import read_board
from bench.report.cells import Cell, Report, Table, name
from bench.report.folder import FILES, FORMATS, report
from bench.report.terminal import print_results
from bench.results.analysis import Results, analyse
from bench.results.protocol import Mark, Protocol

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
EFFECTS = {"DPO": 0.25, "DPO+A": 0.375}
COMMITTED = Path(__file__).parents[3] / "results"
HOSTILE = (
    "a|b", "<script>alert(1)</script>", "_a_ snake_case", "Q&A &lt; &#60;", "two\nlines",
    "*a* 2*3*4 **b**", "100 % of $5 #1 {x} ~a~ ^2", r"back\slash \| \input{x}", "`code`",
    "[a](http://b.c)", "[x] *", "* y", "# y", "> y", "- y", "--- y", "<!-- a", "a\n\nb", "'\"",
    "end\\",
)  # fmt: skip
Rows = list[list[str]]


def rows_of(table: Table) -> Rows:
    """The texts of a table, line breaks as spaces."""
    return [[" ".join(c.text.splitlines()) for c in row] for row in (table.columns, *table.rows)]


@pytest.fixture
def results(make_protocol: MakeProtocol, make_scores: MakeScores) -> Results:
    """One comparison that helps, one that is blocked, and a reward that is warned of."""
    truth, flaws = make_protocol().rewards
    truth = truth.model_copy(update={"marks": (Mark(kind="labelled"),)})
    protocol = make_protocol({"rewards": (truth, flaws)})
    scores = make_scores(protocol, EFFECTS, noise=0.1)
    return analyse(scores[scores["arm"] != "DPO+A"], protocol)


@pytest.fixture
def hostile() -> Report:
    rows = tuple((name(text), Cell(1.5, text, ("hurts",))) for text in HOSTILE)
    tables = tuple(Table(text, (name(text), name(text, "primary")), rows) for text in HOSTILE)
    return Report(HOSTILE[1], tables, HOSTILE)


class Page(HTMLParser):
    """Tables, list items and classes of an HTML fragment; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.tables: list[Rows] = []
        self.titles: list[str] = []
        self.notes: list[str] = []
        self.classes: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        if tag == "table":
            self.tables.append([])
            self.classes.append([])
        elif tag == "tr":
            self.tables[-1].append([])
            self.classes[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.classes[-1][-1].append(dict(attrs).get("class") or "")
        elif tag == "li":
            self.notes.append("")
        elif tag == "caption":
            self.titles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        line = " ".join(data.splitlines())
        if self.open and self.open[-1] in ("th", "td"):
            self.tables[-1][-1][-1] += line
        elif self.open and self.open[-1] == "li":
            self.notes[-1] += line
        elif self.open and self.open[-1] == "caption":
            self.titles[-1] += line


def page_of_markdown(text: str) -> Page:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Page(parser.render(text).replace("<hr />", ""))


UNESCAPED = {
    r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~",
    r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\textdegree{}": "°",
    r"\textdagger{}": "†",
}  # fmt: skip


def plain(text: str) -> str:
    """What LaTeX sets for a text without further commands."""
    text = re.sub(r"^\{\}(?=[\[*])", "", text)
    known = "|".join(map(re.escape, UNESCAPED))
    found = re.sub(rf"{known}|\\[&%$#_{{}}]", lambda m: UNESCAPED.get(m[0], m[0][1:]), text)
    rest = re.sub(rf"{known}|\\[&%$#_{{}}]", "", text)
    assert not set(rest) & set("\\&%$#_{}^~"), text
    return found


def latex_tables(text: str) -> list[Rows]:
    bodies = re.findall(r"\\toprule\n(.*?)\n\\bottomrule", text, re.DOTALL)
    return [
        [
            [plain(cell) for cell in re.split(r" (?<!\\)& ", line.removesuffix(r" \\"))]
            for line in body.splitlines()
            if line != r"\midrule"
        ]
        for body in bodies
    ]


def test_every_format_has_a_name_on_the_command_line() -> None:
    assert get_args(Format) == tuple(FORMATS)
    assert set(FILES.values()) <= set(FORMATS)


def test_renderers_agree_cell_by_cell(results: Results) -> None:
    shown = report(results)
    expected = [rows_of(table) for table in shown.tables]
    assert [len(table) for table in expected] == [4, 3, 3]
    assert page_of_markdown(markdown.render(shown)).tables == expected
    assert Page(html.render(shown)).tables == expected
    assert latex_tables(latex.render(shown)) == expected
    for table, cells in zip(shown.tables, expected, strict=True):
        assert list(reader.reader(io.StringIO(csv.render(table)))) == cells


def test_notes_and_titles_are_those_of_the_report(results: Results) -> None:
    shown = report(results)
    for page in (page_of_markdown(markdown.render(shown)), Page(html.render(shown))):
        assert tuple(page.notes) == shown.notes
    assert Page(html.render(shown)).titles == [table.title for table in shown.tables]
    items = re.findall(r"\\item (.*)", latex.render(shown))
    assert tuple(map(plain, items)) == shown.notes


def test_marks_are_data_and_become_classes_and_colours(
    results: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms, primary, _ = Page(html.render(report(results))).classes
    assert arms[0] == ["", "", "primary warned", "", "primary"]
    assert arms[-1] == ["", "", "missing", "missing", "missing"]
    assert [row[-1] for row in primary] == ["", "helps", "blocked"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    print_results(results, Path("made-up"))
    green = [line for line in capsys.readouterr().out.splitlines() if "\x1b[32m" in line]
    assert len(green) == 1
    assert "DPO - base" in green[0]


def test_values_are_kept_beside_their_texts(results: Results) -> None:
    cell = report(results).tables[1].rows[0][1]
    contrast = results.comparisons[0].contrasts["truth"]
    assert contrast is not None
    assert cell.value == contrast.interval.mean
    assert f'data-value="{contrast.interval.mean:.9g}"' in html.render(report(results))


def test_hostile_names_are_shown_in_markdown_as_they_are(hostile: Report) -> None:
    text = markdown.render(hostile)
    page = page_of_markdown(text)
    assert page.tables == [rows_of(table) for table in hostile.tables]
    assert page.notes == [" ".join(note.splitlines()) for note in hostile.notes]
    assert page.seen == {
        "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"
    }  # fmt: skip


def test_hostile_names_are_shown_in_html_as_they_are(hostile: Report) -> None:
    page = Page(html.render(hostile))
    assert page.tables == [rows_of(table) for table in hostile.tables]
    assert page.notes == [" ".join(note.splitlines()) for note in hostile.notes]
    assert page.seen == {
        "section", "h1", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li"
    }  # fmt: skip


def test_hostile_names_are_shown_in_latex_as_they_are(hostile: Report) -> None:
    text = latex.render(hostile)
    assert latex_tables(text) == [rows_of(table) for table in hostile.tables]
    items = [plain(item) for item in re.findall(r"\\item (.*)", text)]
    assert items == [" ".join(note.splitlines()) for note in hostile.notes]


def test_hostile_names_are_quoted_in_csv(hostile: Report) -> None:
    found = list(reader.reader(io.StringIO(csv.render(hostile.tables[0]), newline="")))
    assert found == [
        [c.text for c in row] for row in (hostile.tables[0].columns, *hostile.tables[0].rows)
    ]


def test_hostile_names_keep_their_rows_on_a_terminal(
    make_protocol: MakeProtocol, make_scores: MakeScores, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "[red]a[/red] two\nlines"
    base, dpo, _ = make_protocol().arms
    family = [{"name": f"{evil} - DPO", "on": [evil], "off": ["DPO"], "question": "?"}]
    other = dpo.model_copy(update={"name": evil})
    judged = {"alpha": 0.05, "gain": None, "share": None, "bound": None, "tie": 0.0}
    protocol = make_protocol(
        {"arms": (base, dpo, other), "comparisons": family, "statistics": judged}
    )
    results = analyse(make_scores(protocol, {"DPO": 0.25}, noise=0.1), protocol)
    print_results(results, Path("made-up"))
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("[red]a[/red] two lines - DPO  ")]) == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
def test_latex_compiles(results: Results, hostile: Report, tmp_path: Path) -> None:
    board = read_board([COMMITTED], published=True).report
    for number, shown in enumerate((report(results), hostile, board)):
        body = latex.render(shown)
        needed = re.match(r"% Needs (\\usepackage\{[a-z,]+\})\.\n", body)
        assert needed is not None
        document = (
            f"\\documentclass{{article}}\n{needed[1]}\n\\begin{{document}}\n"
            f"{body}\\end{{document}}\n"
        )
        (tmp_path / f"{number}.tex").write_text(document)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{number}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:]


def test_latex_is_a_booktabs_table_of_the_right_width(results: Results) -> None:
    text = latex.render(report(results))
    assert re.findall(r"\\begin\{tabular\}\{(l?r*)\}", text) == ["lrrrr", "lrrrrrr", "lr"]
    for rule in ("toprule", "midrule", "bottomrule", "end{tabular}", "end{table}"):
        assert text.count(f"\\{rule}") == 3
    assert "Mean scores (* primary)" in text
    assert r"truth*\textdegree{} & flaws" in text
    assert r"95\% interval" in text


@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_format_is_printed_by_the_command(
    result_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = result_folder()
    assert run(["table", str(folder), "--format", kind]) == 0
    printed = capsys.readouterr().out
    start = {
        "markdown": "# Made",
        "latex": "% Needs",
        "html": "<section",
        "csv": "on,off",
        "json": "{",
    }
    assert printed.startswith(start[kind])
    same = [name for name, format in FILES.items() if format == kind]
    assert all((folder / name).read_text() == printed for name in same)


def test_two_formats_are_refused(result_folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["table", str(result_folder()), "--json", "--format", "html"]) == 1
    assert capsys.readouterr().err == (
        "bench: --json and --format html exclude each other: give one of them\n"
    )
