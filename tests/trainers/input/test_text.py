"""Text, JSON and YAML of others."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainers.errors import UserError
from trainers.input.text import (
    YAML_NODES,
    as_text,
    decode_text,
    parse_json,
    parse_yaml,
    read_jsonl,
    read_text,
    read_yaml,
    split_lines,
)

SECRET = "the-content-of-a-file"


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    for head in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.txt").write_bytes(head + "caf\u00e9".encode())
        assert read_text(tmp_path / "a.txt") == "caf\u00e9"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("caf\u00e9".encode("latin-1"), "byte 0xe9 on line 1"),
        (SECRET.encode("utf-16"), "got UTF-16"),
        (SECRET.encode("utf-16-le"), "NUL on line 1"),
        (SECRET.encode("utf-32-be"), "NUL on line 1"),
        (b"a\nb\0", "NUL on line 2"),
    ],
)
def test_other_encodings_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        decode_text(data, "a.txt")
    assert SECRET not in str(caught.value)


def test_lines_end_where_an_editor_ends_them() -> None:
    assert split_lines("a\r\nb\u2028c\x85d\x0be\rf\n\n") == ["a", "b\u2028c\x85d\x0be", "f", ""]
    assert split_lines("") == []


@pytest.mark.parametrize("value", [None, float("nan"), 1, True, ["a"], {"en": "a"}, b"a"])
def test_what_is_no_text_is_none(value: Any) -> None:
    with pytest.raises(UserError, match=r"row 3: expected a prompt as text"):
        as_text(value, "row 3")


def test_half_a_surrogate_pair_is_no_character() -> None:
    assert as_text(json.loads('"\\ud83d\\ude00"'), "row 3") == "\U0001f600"
    with pytest.raises(UserError, match="surrogate"):
        as_text(json.loads('"a cat \\ud83d"'), "row 3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{{{SECRET}", "line 1 column 2"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ('{"a": NaN}', "NaN"),
        ("[1, -Infinity]", "-Infinity"),
        ("[" * 200_000, "too many levels"),
        ("1" * 5000, "4300 digits"),
        ("", "line 1"),
    ],
)
def test_what_is_no_json_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse_json(text, "a.json")
    assert SECRET not in str(caught.value)


def test_lines_of_json_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y"}\r\n\n[1]\n'.encode())
    assert list(read_jsonl(path)) == [(f"{path}:1", {"a": "x\u2028y"}), (f"{path}:3", [1])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a: [{SECRET}", "line 1"),
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' twice at line 2"),
        ("a: 1\na: 2", "the key 'a' twice at line 2"),
        ("? [1]\n: 2", "no plain value"),
        ("&a [*a]", "an alias within"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("[" * 5000, "too many levels"),
        ("a: \x07", "special characters"),
        ("- 1\n--- \n- 2", "another document"),
        ("x: " + "y" * (1 << 20), "characters of YAML"),
    ],
)
def test_what_is_no_yaml_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse_yaml(text, "a.yaml")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_are_taken_while_they_stay_small() -> None:
    merged = parse_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\n", "a.yaml")
    assert merged == {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}
    bomb = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(20))
    with pytest.raises(UserError, match=f"more than {YAML_NODES} values"):
        parse_yaml(bomb, "a.yaml")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_plain_values_are_read_as_they_were_written(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value), "a.yaml") == value
    assert parse_json(json.dumps(value), "a.json") == value


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(text, "a")
        except UserError as error:
            assert "\n" not in str(error)


def test_a_file_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}
