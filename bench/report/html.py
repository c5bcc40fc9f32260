"""A report as a fragment of HTML: to be put into a page, whose style sheet knows the classes."""

from html import escape

from bench.report.cells import Cell, Report, Table


def render(report: Report) -> str:
    """The whole report as one ``section``; the marks of a cell are its classes."""
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return "\n".join(
        [
            f'<section class="dpo-bench">\n<h1>{escape(report.title)}</h1>',
            *map(table, report.tables),
            f"<ul>\n{notes}\n</ul>\n</section>\n",
        ]
    )


def table(table: Table) -> str:
    """One table; a number that a cell holds is its ``data-value``."""
    return "\n".join(
        [
            f"<table>\n<caption>{escape(table.title)}</caption>",
            f"<thead>\n{_row('th', table.columns)}\n</thead>\n<tbody>",
            *(_row("td", row) for row in table.rows),
            "</tbody>\n</table>",
        ]
    )


def _row(tag: str, cells: tuple[Cell, ...]) -> str:
    return f"<tr>{''.join(_cell(tag, cell) for cell in cells)}</tr>"


def _cell(tag: str, cell: Cell) -> str:
    marks = f' class="{" ".join(cell.marks)}"' if cell.marks else ""
    # What a script sorts by.
    value = f' data-value="{cell.value}"' if isinstance(cell.value, float | int) else ""
    return f"<{tag}{marks}{value}>{escape(cell.text)}</{tag}>"
