"""Results as JSON."""

import math
from typing import Any

from pydantic import TypeAdapter

from bench.results.analysis import Results
from trainers.files import as_json


def render(results: Results) -> str:
    """Every figure and the protocol, floats rounded to 9 significant digits."""
    data = plain(results)
    data["comparisons"] = [{**found.pop("comparison"), **found} for found in data["comparisons"]]
    return as_json(data)


def plain(value: object) -> Any:
    """A dataclass as what JSON knows, floats rounded to 9 significant digits."""
    return _rounded(TypeAdapter(type(value)).dump_python(value, mode="json"))


def _rounded(value: Any) -> Any:
    match value:
        case dict():
            return {k: _rounded(v) for k, v in value.items()}
        case list():
            return [_rounded(v) for v in value]
        case float():
            return float(f"{value:.9g}") if math.isfinite(value) else None
        case _:
            return value
