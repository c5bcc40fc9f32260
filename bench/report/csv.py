"""A table as comma-separated values."""

import csv
import io

from bench.report.cells import Table


def render(table: Table) -> str:
    """Header and rows."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([cell.text for cell in row] for row in (table.columns, *table.rows))
    return stream.getvalue()
