"""Ways to spoil an input: its bytes, or the values that it says."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeAlias

from hypothesis import strategies as st

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", " ", "a", "0", "nan", "null", "..", "../a", "/etc/hostname", "a\0b",
    "\ud83d", "\u2028", "[/red]", "x" * 5000, [], {}, [None], [[]], {"a": None}, {"name": "a"},
)  # fmt: skip
"""Values that somebody's file holds where another was meant."""
TOKENS = (
    b"", b"\0", b"\n", b"\r", b"\t", b",", b'"', b"'", b"{", b"}", b"[", b"]", b":", b"-", b"&a ",
    b"*a", b"!!python/name:os.system ", b"\xe9", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\xbd",
    b"\xe2\x80\xa8", b"\xc2\x85", b"nan", b"null", b"true", b"9" * 5000, b"[" * 5000,
    b"version https://git-lfs.github.com/spec/v1\n",
)  # fmt: skip
"""Bytes that mean something to a reader."""


def altered(value: Any, draw: Draw) -> Any:
    """A copy of a value of JSON in which one to three places say something else, or nothing."""
    box = [deepcopy(value)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(_places(box)))
        action = draw(st.sampled_from(("replace", "replace", "remove", "repeat", "rename")))
        if action == "replace" or holder is box:
            holder[key] = deepcopy(draw(st.sampled_from(ODD)))
        elif action == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, deepcopy(holder[key]))
        elif action == "rename":
            holder[draw(st.sampled_from((f"{key}z", "", str(key).upper())))] = holder.pop(key)
    return box[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every holder and key within a value."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    return [(value, key) for key in keys] + [p for key in keys for p in _places(value[key])]


def damaged(data: bytes, draw: Draw) -> bytes:
    """A copy of bytes with some of them changed, cut out, doubled or put in."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(found)))
        last = min(len(found), first + draw(st.sampled_from((1, 1, 4, 64, len(found)))))
        action = draw(st.sampled_from(("flip", "flip", "cut", "repeat", "put")))
        if action == "flip" and first < len(found):
            found[first] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del found[first:last]
        elif action == "repeat":
            found[first:first] = found[first:last]
        else:
            found[first:last] = draw(st.sampled_from(TOKENS))
    return bytes(found)


def spoiled(value: Any, write: Callable[[Any], bytes], draw: Draw) -> bytes:
    """The bytes of a value of which its places, its bytes, both or neither are spoiled."""
    how = draw(st.sampled_from(("values", "values", "bytes", "both", "neither")))
    given = altered(value, draw) if how in ("values", "both") else value
    data = write(given)
    return damaged(data, draw) if how in ("bytes", "both") else data
