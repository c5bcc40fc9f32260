"""Inputs that the mutations of ``tests/fuzz`` make, to be given to whole commands."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import ROOT
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

FUZZ = ROOT / "tests" / "fuzz"


def fuzz(module: str) -> Any:
    """A module of the fuzz."""
    if str(FUZZ) not in sys.path:
        sys.path.append(str(FUZZ))
    return importlib.import_module(module)


def drawn(
    folder: Path, count: int, number: int, write: Callable[[Path, Any], object]
) -> list[Path]:
    """About ``count`` folders, each with what ``write`` put there by its draws."""
    made: list[Path] = []
    folder.mkdir()

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def make(data: st.DataObject) -> None:
        path = folder / str(len(list(folder.iterdir())))
        path.mkdir()
        write(path, data.draw)
        made.append(path)

    make()
    return made[:count]


def inputs(reader: str, folder: Path, count: int, number: int) -> list[Path]:
    """About ``count`` folders, each with an input of a reader of the fuzz."""
    (found,) = (one for one in fuzz("readers").READERS if one.name == reader)
    return drawn(folder, count, number, found.write)
