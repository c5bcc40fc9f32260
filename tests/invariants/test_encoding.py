"""Text is UTF-8 whatever the locale: no file is opened in whatever that says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
import trainers

FILES = [
    path
    for package in (bench, trainers)
    for path in sorted(Path(package.__path__[0]).rglob("*.py"))
]


def in_the_locale(source: str) -> Iterator[int]:
    """Lines on which text is read or written without an encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name == "read_text" or (name == "write_text" and len(node.args) == 1):
            yield node.lineno
        last = node.args[-1].value if node.args and isinstance(node.args[-1], ast.Constant) else 0
        if name in ("open", "fdopen") and isinstance(last, str) and "b" not in last:
            yield node.lineno


@pytest.mark.parametrize("source", ["p.read_text()", "p.write_text('x')", "p.open('w')"])
def test_what_is_looked_for_is_found(source: str) -> None:
    assert [*in_the_locale(source)] == [1]


def test_no_text_is_in_the_encoding_of_the_locale() -> None:
    found = {f"{path}:{line}" for path in FILES for line in in_the_locale(path.read_text("utf-8"))}
    assert found == set()
