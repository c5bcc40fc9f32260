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
    Source,
)


def make_source(value: str | Mapping[str, Any]) -> Source:
    """A source from ``{"name": ..., **settings}``, or from a path alone.

    A path alone is that of the source which claims its suffix; where none does, as for a folder, a
    pattern or a Hub id, it is ``parquet``.

    Raises:
        UserError: If the name or a setting is unknown.
    """
    if isinstance(value, str):
        suffix = Path(value).suffix
        claims = (name for name, kind in SOURCES.usable() if suffix in kind.suffixes)
        value = {"name": next(claims, "parquet"), "path": value}
    return build(SOURCES, value)


__all__ = ["SOURCES", "BadPair", "Rows", "Source", "make_source"]
