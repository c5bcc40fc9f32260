"""The order of files by their names, where people and programs agree on one."""

import re
from collections.abc import Sequence


def in_order(names: Sequence[str]) -> list[str] | None:
    """Distinct names in the order that they are meant in; None if that is not plain.

    Numbers can be sorted by their values or as text, where ``10.png`` is before ``2.png``. If both
    give one order, it is that; if one number alone tells the names apart, as in ``0.png`` to
    ``11.png``, it is that of its values.
    """
    parts = {name: re.split("([0-9]+)", name.casefold()) for name in names}
    keys = {name: [int(p) if n % 2 else p for n, p in enumerate(parts[name])] for name in names}
    by_value = sorted(names, key=lambda name: (keys[name], name))
    if by_value == sorted(names):
        return by_value
    if len({len(key) for key in keys.values()}) > 1:
        return None
    columns = enumerate(zip(*keys.values(), strict=True))
    differ = [(place, len(set(values))) for place, values in columns if len(set(values)) > 1]
    one_number = len(differ) == 1 and differ[0][0] % 2 == 1 and differ[0][1] == len(names)
    return by_value if one_number else None
