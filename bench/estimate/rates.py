"""How long work takes, from measured steps: what nobody has measured is not known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from trainers.input.checked import Checked
from trainers.input.text import read_yaml

Part = Literal["encoding", "training", "generation", "scoring"]
UNITS: dict[Part, str] = {
    "encoding": "image", "training": "pair", "generation": "image", "scoring": "score"
}  # fmt: skip


class Rate(Checked):
    """What one device took for one unit."""

    part: Part
    of: dict[str, str | int | bool]
    """Settings that work must have for the rate to hold of it."""
    device: str
    seconds: float = Field(gt=0)
    """Per unit of ``UNITS``."""
    passes: int | None = Field(None, ge=1)
    """Passes through the network in that time, where other work of the kind may take others."""
    source: str


@dataclass(frozen=True)
class Work:
    """Units of one part of an experiment, all of a kind."""

    part: Part
    label: str
    units: int
    of: dict[str, Any]
    passes: int | None = None
    """Passes through the network of a unit, if it matters."""

    def known(self, rates: Iterable[Rate]) -> dict[str, Rate]:
        """The first rate of each device that holds for this work."""
        found: dict[str, Rate] = {}
        for rate in rates:
            if rate.part == self.part and rate.of.items() <= self.of.items():
                found.setdefault(rate.device, rate)
        return found

    def by(self, rate: Rate) -> tuple[float, str]:
        """Seconds of a unit by a rate, and where they come from."""
        if self.passes is None or rate.passes in (None, self.passes):
            return rate.seconds, rate.source
        share = f"{self.passes} passes of the network for its {rate.passes}"
        return rate.seconds * self.passes / rate.passes, f"{rate.source}, {share}"


@dataclass
class Time:
    """What one device would take for a part, or for as much of it as is known."""

    part: Part
    device: str
    units: int = 0
    hours: float = 0.0
    sources: tuple[str, ...] = ()


def recorded() -> list[Rate]:
    """The measurements that ship with the package."""
    rows = read_yaml(Path(__file__).parent / "rates.yaml")
    return [Rate.model_validate(row) for row in rows]


def times(works: Sequence[Work], rates: Sequence[Rate]) -> list[Time]:
    """Each part on each device that something is known of, in their order."""
    found: dict[tuple[str, str], Time] = {}
    for work in works:
        for device, rate in work.known(rates).items():
            time = found.setdefault((work.part, device), Time(work.part, device))
            seconds, source = work.by(rate)
            time.units += work.units
            time.hours += work.units * seconds / 3600
            time.sources = tuple(dict.fromkeys((*time.sources, source)))
    return list(found.values())


def unknown(works: Sequence[Work], rates: Sequence[Rate]) -> list[str]:
    """Work that no rate holds for."""
    return [work.label for work in works if not work.known(rates)]
