"""Where preference pairs come from, one file each, found by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.data.sources.base import BadPair, Rows, Source
from trainers.registry import Registry, build

SOURCES: Registry[type[Source]] = Registry(
    "source",
    "dpo_bench.data",
    {
        "parquet": "trainers.data.sources.parquet:Parquet",
        "rankings": "trainers.data.sources.rankings:Rankings",
        "folder": "trainers.data.sources.folder:Folder",
    },
)

SUFFIXES = {".jsonl": "folder", ".json": "rankings"}
"""Sources that the name of a file stands for; any other is parquet."""


def make_source(value: str | Mapping[str, Any]) -> Source:
    """A source from ``{"name": ..., **settings}``, or from a path alone.

    A path that ends in ``.jsonl`` is a ``folder``, one in ``.json`` are ``rankings``; every other,
    a folder, a pattern or a Hub id, is ``parquet``.

    Raises:
        UserError: If the name or a setting is unknown.
    """
    if isinstance(value, str):
        value = {"name": SUFFIXES.get(Path(value).suffix, "parquet"), "path": value}
    return build(SOURCES, value)


__all__ = ["SOURCES", "BadPair", "Rows", "Source", "make_source"]
