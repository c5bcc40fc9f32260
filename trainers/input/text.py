"""Text, JSON and YAML: UTF-8 whatever the locale, and refused where it could be misread.

Messages say where a file is wrong and never show what it holds: it may be one that was named by
mistake.
"""

import json
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainers.errors import UserError
from trainers.input.paths import read_bytes

BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
"""Marks at the head of a file that say that it is no UTF-8."""
YAML_CHARACTERS = 1 << 20
YAML_NODES = 100_000
"""What a YAML text may hold at most, what its aliases stand for counted each time."""
SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; a byte order mark at its head is no part of it.

    Raises:
        UserError: If it is no file, or holds something else.
    """
    return decode_text(read_bytes(path), path)


def decode_text(data: bytes, place: object) -> str:
    """UTF-8 to text; ``place`` is what a message calls it.

    Raises:
        UserError: If the bytes are something else.
    """
    for mark, encoding in BOMS.items():
        if data.startswith(mark):
            raise UserError(f"{place}: expected UTF-8, got {encoding}: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{place}: expected text in UTF-8, got byte 0x{data[error.start]:02x} on line {line}: "
            "save it as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{place}: expected text in UTF-8, got a NUL on line {line}: save it as UTF-8, or give "
            "a file of text"
        )
    return text


def split_lines(text: str) -> list[str]:
    """Lines as editors count them: characters such as U+2028 end none."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines


def as_text(value: object, place: object, what: str = "a prompt") -> str:
    """A value that must be text, and such that it can be written.

    Raises:
        UserError: If it is none; ``place`` and ``what`` say where and what it should have been.
    """
    if not isinstance(value, str):
        got = "nothing" if value is None else f"a {type(value).__name__}"
        raise UserError(f"{place}: expected {what} as text, got {got}: correct or remove it")
    if SURROGATE.search(value):
        raise UserError(
            f"{place}: expected {what}, got half of a surrogate pair in it, which is no "
            "character: correct or remove it"
        )
    return value


def read_json(path: Path, finite: bool = True) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: As :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path), path, finite)


def read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and value of each line of a file that is not blank.

    Raises:
        UserError: As :func:`read_text` and :func:`parse_json`, with the number of the line.
    """
    for number, line in enumerate(split_lines(read_text(path)), 1):
        if line.strip():
            yield (place := f"{path}:{number}"), parse_json(line, place)


def parse_json(text: str, place: object, finite: bool = True) -> Any:
    """The value of a JSON text; no object has a key twice, and numbers are finite.

    With ``finite`` False they may be what Python writes for others, ``-Infinity`` and the like.

    Raises:
        UserError: If it is no such text.
    """
    try:
        return (_DECODER if finite else _LENIENT).decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise UserError(f"{place}: expected JSON, got {error.msg} at {where}") from error
    except (ValueError, RecursionError) as error:
        why = "too many levels" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{place}: expected JSON, got {why}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {_short(next(k for k in keys if keys.count(k) > 1))} twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no number in JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
_LENIENT = json.JSONDecoder(object_pairs_hook=_unique)


def _short(key: object) -> str:
    """A key as a message shows it."""
    return repr(str(key)[:40])


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        UserError: As :func:`read_text` and :func:`parse_yaml`.
    """
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, place: object) -> Any:
    """The value of a YAML text of plain types; no mapping has a key twice.

    Raises:
        UserError: If it is no such text, or holds more than ``YAML_NODES`` values.
    """
    if len(text) > YAML_CHARACTERS:
        raise UserError(
            f"{place}: expected at most {YAML_CHARACTERS} characters of YAML, got {len(text)}"
        )
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" at line {mark.line + 1} column {mark.column + 1}"
        raise UserError(f"{place}: expected YAML, got {error.problem or 'none'}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = "too many levels" if isinstance(error, RecursionError) else _first_line(error)
        raise UserError(f"{place}: expected YAML, got {why}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Loader(yaml.SafeLoader):
    """A safe loader that takes no key twice, and not more values than it should."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._expanded(node, {}, ())
        return node

    def _expanded(self, node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
        """How many values a node stands for."""
        if id(node) in above:
            raise yaml.constructor.ConstructorError(
                None, None, "an alias within what it stands for", node.start_mark
            )
        if id(node) not in known:
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                inner = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                inner = node.value
            line = (*above, id(node))
            known[id(node)] = 1 + sum(self._expanded(part, known, line) for part in inner)
            if known[id(node)] > YAML_NODES:
                raise yaml.constructor.ConstructorError(
                    None, None, f"more than {YAML_NODES} values", node.start_mark
                )
        return known[id(node)]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[Hashable] = set()
        for key in own:
            if not isinstance(name := self.construct_object(key, deep=True), Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is no plain value", key.start_mark
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {_short(name)} twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)
