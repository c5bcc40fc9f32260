"""Results as JSON."""

import math
from typing import Any

from pydantic import TypeAdapter

from bench.results.analysis import Results
from trainers.files import as_json


def render(results: Results) -> str:
    """Every figure and the protocol, floats rounded to 9 significant digits."""
    data = TypeAdapter(Results).dump_python(results, mode="json")
    data["comparisons"] = [{**found.pop("comparison"), **found} for found in data["comparisons"]]
    return as_json(_rounded(data))


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
