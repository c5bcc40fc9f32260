"""A report as Markdown (CommonMark, with the tables of GitHub)."""

import re

from bench.report.cells import Cell, Report, Table, one_line

_SPECIAL = re.compile(
    r"[\\`~]"  # escapes, code, strikethrough
    r"|\*(?=\w)|(?<!\w)[*_](?=\S)"  # whatever could begin an emphasis; nothing else ends one
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # HTML
    r"|\](?=[(\[:])"  # links
    r"|^(?:>|[#+*-](?=[\s#-]))"  # headings, lists, quotes
)


def escape(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def render(report: Report) -> str:
    """The whole report."""
    parts = [f"# {escape(report.title)}\n"]
    parts += [f"## {escape(table.title)}\n\n{_table(table)}\n" for table in report.tables]
    parts.append("\n".join(f"- {escape(note)}" for note in report.notes) + "\n")
    return "\n".join(parts)


def _table(table: Table) -> str:
    rule = "| " + " | ".join("---" for _ in table.columns) + " |"
    return "\n".join([_row(table.columns), rule, *map(_row, table.rows)])


def _row(cells: tuple[Cell, ...]) -> str:
    return "| " + " | ".join(escape(cell.text).replace("|", r"\|") for cell in cells) + " |"
