"""Pictures beside each other: a row for each prompt, a column for each arm, from equal noise."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.report.figures.source import Source
from bench.report.numbers import scale
from bench.report.page.pairs import signs, text
from bench.report.page.pictures import Picture, Pictures


@dataclass(frozen=True)
class Cell:
    """The picture of an arm."""

    arm: str
    picture: Picture | None
    score: str
    """By the primary reward."""


@dataclass(frozen=True)
class Row:
    """A prompt: the first training seed of each arm, and its first image."""

    place: int
    """Of the prompt in its set."""
    prompt: str
    cells: tuple[Cell, ...]


def grid(source: Source, pictures: Pictures, prompts: int) -> Iterator[Row]:
    """The first ``prompts`` of the set, those of which there is a picture."""
    protocol = source.results.protocol
    primary, sign = protocol.primary, signs(source)[protocol.primary]
    own, like = source.scores[primary], scale(source.results, primary)
    for place, prompt in enumerate(protocol.prompts.ids[:prompts]):
        found = {a.name: pictures.get(a.name, a.seeds[0], prompt, 0) for a in protocol.arms}
        if any(found.values()):
            values = {name: sign * float(own[name][0, place, 0]) for name in found}
            cells = (Cell(name, found[name], text(value, like)) for name, value in values.items())
            yield Row(place, pictures.prompt(prompt), tuple(cells))
