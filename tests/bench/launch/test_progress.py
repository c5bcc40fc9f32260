"""What a run shows of itself, whatever its arms are called."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from bench.launch.progress import display
from bench.spec.launch import Work
from bench.spec.model import Cost
from bench.stages.base import Report, Stage
from bench.stages.store import Store

COST = Cost(pair=1, image=1, score=1, start=1)


@dataclass(frozen=True)
class Named(Stage):
    kind: ClassVar[str] = "named"
    work: ClassVar[Work] = "score"
    order: ClassVar[int] = 0

    def key(self) -> dict[str, Any]:
        return {"label": self.label}

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def units(self) -> int:
        return 4

    def expected_seconds(self, cost: Cost) -> float:
        return 1.0

    def run(self, folder: Path, store: Store, report: Report) -> None:
        """Nothing."""


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("label", ["arm [/red] [bold]x", "a :cat: b", "half \ud800", "[", "\\[/x]"])
def test_a_label_is_shown_as_it_is(terminal: bool, label: str) -> None:
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None,
                      markup=False, emoji=False)  # fmt: skip
    stage = Named(label)
    with display(console, [stage], COST, 1) as shown:
        shown.begin(stage)
        shown.advance(stage.id, 2)
        shown.end(stage, f"{label} failed")
    stream.flush()
    said = raw.getvalue().decode()
    assert f"{label} failed".encode(errors="backslashreplace").decode() in said
