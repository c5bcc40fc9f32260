"""Tables that documents quote from results: every cell stands in the row of that name there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"<!-- from (results/[\w-]+/table\.md) -->\n\n((?:\|[^\n]*\n)+)")
PAGES = ("README.md", "docs/paper.md")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def quotes() -> list[tuple[str, str, str]]:
    """Page, source, and rows of each quoted table."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        tables = QUOTED.findall(text)
        assert len(tables) == text.count("<!-- from "), f"a quotation in {page} has another form"
        found += [(page, source, rows) for source, rows in tables]
    return found


def test_there_are_some() -> None:
    assert {page for page, _, _ in quotes()} == {*PAGES}


@pytest.mark.parametrize(("page", "source", "rows"), quotes())
def test_every_number_is_in_the_results(page: str, source: str, rows: str) -> None:
    there: dict[str, list[str]] = {}
    for line in (ROOT / source).read_text().splitlines():
        if line.startswith("| "):
            name, *others = cells(line)
            there.setdefault(name, []).extend(others)
    _, rule, *quoted = rows.splitlines()
    assert set(rule) <= set("|- ")
    assert quoted
    for row in quoted:
        name, *others = cells(row)
        assert name in there, f"{page} quotes a row {name!r} that {source} has not"
        assert set(others) <= {*there[name]}, f"{page} quotes {name!r} otherwise than {source}"
