"""Figures that papers have published, each block with its source's own base model and protocol.

``published.csv`` has the values as they are printed, ``published_protocols.csv`` how they came
about, as far as the source says. No two sources share a protocol, so that rows of one block can be
compared, and nothing else.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from bench.report.cells import Cell, Table, name
from bench.results.board import Group

ROWS = Path(__file__).with_name("published.csv")
PROTOCOLS = Path(__file__).with_name("published_protocols.csv")
KEYS = ("source", "table", "base", "prompts", "n_prompts")
"""Of a block."""
VALUES = {
    "pickscore": "PickScore", "hps": "HPS", "imagereward": "ImageReward", "clip": "CLIP",
    "aesthetic": "aesthetic",
}  # fmt: skip
MODELS = {"sd15": "Stable Diffusion 1.5", "sdxl": "SDXL"}
HUB = {"sd15": "stable-diffusion-v1-5", "sdxl": "stable-diffusion-xl-base-1.0"}
"""How the names of these models on the Hub end."""
PROMPTS = {
    "Pick-a-Pic v2 test": "pickapic-v2-test", "HPDv2 test": "hpdv2-benchmark",
    "Pick-a-Pic validation_unique": None,
}  # fmt: skip
"""Which of our prompt sets they are; None for those we have not."""
BASE = "base"
UNSAID = "not stated"


@dataclass(frozen=True)
class Protocol:
    """How a source has made its figures; an empty text where it does not say."""

    source: str
    images: str
    """Of each prompt."""
    sampler: str
    steps: str
    guidance: str
    hps: str
    """Version of HPS."""
    aggregate: str
    remark: str


@dataclass(frozen=True)
class Block:
    """A table of a paper, for one base model."""

    protocol: Protocol
    rows: dict[str, dict[str, str]]
    """Values as they are printed, by method and reward."""
    table: str
    base: str
    prompts: str
    n_prompts: str


def blocks() -> tuple[Block, ...]:
    """All that is known, in the order of the file."""
    protocols = {row["source"]: Protocol(**row) for row in _read(PROTOCOLS)}
    found: dict[tuple[str, ...], Block] = {}
    for row in _read(ROWS):
        key = tuple(row[k] for k in KEYS)
        of_table = dict(zip(KEYS[1:], key[1:], strict=True))
        block = found.setdefault(key, Block(protocols[row["source"]], {}, **of_table))
        block.rows[row["method"]] = {kind: row[kind] for kind in VALUES if row[kind]}
    return tuple(found.values())


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [*csv.DictReader(stream)]


def tables(found: Sequence[Block]) -> tuple[Table, ...]:
    """A table for each block: values, and in brackets the gain over its own base model."""
    return tuple(map(_table, found))


def _table(block: Block) -> Table:
    kinds = [kind for kind in VALUES if any(kind in row for row in block.rows.values())]
    version = {"hps": f"HPS {block.protocol.hps or 'of no stated version'}"}
    heads = [name("method"), *(name({**VALUES, **version}[kind]) for kind in kinds)]
    rows = tuple(
        (Cell(method, method, ("published",)), *(_value(block, row, kind) for kind in kinds))
        for method, row in block.rows.items()
    )
    title = (
        f"Published, not comparable: {block.protocol.source}, table {block.table}, "
        f"{MODELS[block.base]}"
    )
    return Table(title, tuple(heads), rows)


def _value(block: Block, row: dict[str, str], kind: str) -> Cell:
    if kind not in row:
        return Cell(None, "-", ("published",))
    base = block.rows.get(BASE, {}).get(kind)
    text = row[kind]
    if base is None or row is block.rows[BASE]:
        return Cell(float(_number(text)), text, ("published",))
    return Cell(float(_number(text)), f"{text} ({_number(text) - _number(base):+})", ("published",))


def _number(text: str) -> Decimal:
    return Decimal(text.removesuffix("*"))


def notes(found: Sequence[Block], groups: Sequence[Group]) -> Iterator[str]:
    """The protocol of each block in words, and in what it differs from the groups of ours."""
    yield (
        "Published rows are values as the sources print them, in brackets their gain over the "
        f"source's own base model. {_unsteady(found)} Compare within a block only."
    )
    for block in found:
        p = block.protocol
        number = f"{block.n_prompts} prompts" if block.n_prompts else f"prompts (number {UNSAID})"
        told = (
            f"{p.source}, table {block.table}, {MODELS[block.base]}: {number} of {block.prompts}, "
            f"{p.images} image(s) each; sampler {p.sampler or UNSAID}, steps {p.steps or UNSAID}, "
            f"guidance {p.guidance or UNSAID}; {p.aggregate}s"
        )
        remark = f"; {p.remark}" if p.remark else ""
        yield f"{told}{remark}. {_differing(block, groups)}".rstrip()


def _unsteady(found: Sequence[Block]) -> str:
    """How far one base model moves between sources on what is nearly one set of prompts."""
    values = sorted(
        _number(block.rows[BASE]["pickscore"])
        for block in found
        if block.base == "sd15" and BASE in block.rows and "Pick-a-Pic" in block.prompts
    )
    return (
        f"{MODELS['sd15']} itself, untrained, has a PickScore of {values[0]} to {values[-1]} there "
        "on prompts of Pick-a-Pic alone."
    )


def _differing(block: Block, groups: Sequence[Group]) -> str:
    """The group that is nearest, and all that differs there."""
    if not groups:
        return ""
    differing = [[*_differences(block, group)] for group in groups]
    nearest = min(range(len(groups)), key=lambda n: len(differing[n]))
    words = ", ".join(differing[nearest]) or "nothing that is stated"
    return f"Differs from group {nearest + 1} in: {words}."


def _differences(block: Block, group: Group) -> Iterator[str]:
    p, images = block.protocol, group.images
    if not group.base.rstrip("/").casefold().endswith(HUB[block.base]):
        yield "base model"
    if PROMPTS[block.prompts] != group.prompts:
        yield "prompts"
    for what, theirs, ours in (
        ("number of prompts", block.n_prompts, str(group.n_prompts)),
        ("images of each prompt", p.images, str(images.per_prompt)),
        ("sampler", p.sampler.casefold(), images.sampler.casefold()),
        ("steps", p.steps, str(images.steps)),
        ("guidance", p.guidance, f"{images.guidance:g}"),
        ("aggregate", p.aggregate, "mean"),
    ):
        if not theirs:
            yield f"{what} (not stated)"
        elif theirs != ours:
            yield what
    if not any(reward.name.startswith(f"hps{p.hps or 'v'}") for reward in group.rewards):
        yield "rewards"
