"""What two sets of settings differ in, for people."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

SHOWN = 3
"""Keys that are told."""
LONGEST = 60
"""Characters of a value that are told."""
_ABSENT = object()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first dotted keys that differ, and their values: ``steps is 4 there and 8 here``.

    Args:
        there: JSON-able settings.
        here: Likewise.

    Returns:
        Nothing if they are equal.
    """
    found = list(islice(_differing(there, here, ""), SHOWN + 1))
    told = [f"{key} is {_text(a)} there and {_text(b)} here" for key, a, b in found[:SHOWN]]
    return "; ".join(told) + ("; ..." if len(found) > SHOWN else "")


def _differing(
    there: Mapping[str, Any], here: Mapping[str, Any], above: str
) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys((*there, *here)):
        one, other = there.get(key, _ABSENT), here.get(key, _ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differing(one, other, f"{above}{key}.")
        elif one != other:
            yield above + key, one, other


def _text(value: Any) -> str:
    text = "not set" if value is _ABSENT else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
