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
    found = list(islice(differing(there, here), SHOWN + 1))
    told = [f"{key} is {text(a)} there and {text(b)} here" for key, a, b in found[:SHOWN]]
    return "; ".join(told) + ("; ..." if len(found) > SHOWN else "")


def differing(
    there: Mapping[str, Any], here: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Every dotted key that differs, and both values; see :func:`text`."""
    for key in dict.fromkeys((*there, *here)):
        one, other = there.get(key, _ABSENT), here.get(key, _ABSENT)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differing(one, other, f"{above}{key}.")
        elif one != other:
            yield above + key, one, other


def text(value: Any) -> str:
    """A value as JSON, cut, or ``not set``."""
    told = "not set" if value is _ABSENT else json.dumps(value)
    return told if len(told) <= LONGEST else told[: LONGEST - 3] + "..."
