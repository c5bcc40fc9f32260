r"""A report as LaTeX: booktabs tables, to be read by ``\input``."""

import re

from bench.report.cells import Cell, Report, Table, one_line

_WORDS = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "°": r"\textdegree{}", "†": r"\textdagger{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}  # fmt: skip
GREY = ("published",)
_SPECIAL = re.compile("[" + re.escape("".join(_WORDS)) + "]")


def escape(text: str) -> str:
    """A text that LaTeX sets as it is, on one line, also at the beginning of a row or an item."""
    words = _SPECIAL.sub(lambda found: _WORDS[found[0]], one_line(text))
    # After the end of a row these would be its options.
    return f"{{}}{words}" if words.startswith(("[", "*")) else words


def render(report: Report) -> str:
    """The whole report."""
    notes = "\n".join(f"\\item {escape(note)}" for note in report.notes)
    return "\n".join(
        [
            f"% Needs \\usepackage{{{_packages(report)}}}.",
            f"\\section*{{{escape(report.title)}}}",
            *map(_table, report.tables),
            f"\\begin{{itemize}}\n{notes}\n\\end{{itemize}}\n",
        ]
    )


def _packages(report: Report) -> str:
    rows = (row for table in report.tables for row in table.rows)
    return (
        "booktabs,xcolor" if any(cell.marks == GREY for row in rows for cell in row) else "booktabs"
    )


def _table(table: Table) -> str:
    return "\n".join(
        [
            f"\\begin{{table}}\n\\caption{{{escape(table.title)}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}\n\\toprule",
            f"{_row(table.columns)}\n\\midrule",
            *map(_row, table.rows),
            "\\bottomrule\n\\end{tabular}\n\\end{table}",
        ]
    )


def _row(cells: tuple[Cell, ...]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"\\textcolor{{gray}}{{{text}}}" if cell.marks == GREY else text
