"""What is in a source of pairs, what of it a run would drop, and what it would refuse."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc
import typer

from bench.terminal import Column, print_json, print_table, print_text
from trainers.data.ahead import work_ahead
from trainers.data.preprocess import Augmentation, geometry, preprocess
from trainers.data.settings import DataSettings
from trainers.data.sources import BadPair, Rows, Source
from trainers.data.sources.base import describe_label
from trainers.input.image import image_size

SHOWN = 20
"""Places that are named of each kind; all are counted."""
ASPECTS = (0.5, 0.75, 0.95, 1.05, 1.34, 2.0)
"""Bounds of the histogram of width / height."""
AS_IS = DataSettings()
NO_DRAWS = Augmentation(0.0, 0.0, False)


@dataclass
class Findings:
    """Counts, and the first places of what is wrong."""

    rows: int
    labels: dict[str, int]
    prompts: int
    empty_prompts: int
    pairs_per_prompt: dict[str, float]
    illegal: int = 0
    illegal_at: list[str] = field(default_factory=list)
    corrupt: int = 0
    corrupt_at: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """Images by ``width x height``, the most frequent first."""
    aspects: dict[str, int] = field(default_factory=dict)
    """Images by width / height."""
    repeated_images: int = 0
    """Images whose bytes were there before."""
    repeated_pairs: int = 0
    """Rows with a prompt and two images, in either order, that were there before."""
    same_images: int = 0
    """Rows whose two images are the same bytes."""

    @property
    def usable(self) -> int:
        """Rows with a label that is no tie, and images that can be read (if rows are legal)."""
        return self.labels["usable"]

    def problems(self) -> list[str]:
        """What a run would refuse."""
        found = []
        if self.illegal:
            found.append(f"{self.illegal} labels are not 0, 0.5 or 1")
        if not self.usable:
            found.append("no pair is left to learn from")
        return found

    def warnings(self) -> list[str]:
        """What a run would drop, and what it has to be told."""
        labels = self.labels
        counted = {
            "rows have a damaged or missing image: dropped": self.corrupt,
            "rows are ties: dropped, unless 'ties: soft'": labels["tie"],
            "rows have no label: dropped": labels["none"],
            "rows show the same image twice": self.same_images,
            "rows repeat an earlier pair": self.repeated_pairs,
        }
        found = [f"{count} {text}" for text, count in counted.items() if count]
        if len(self.sizes) > 1:
            found.append(f"images have {len(self.sizes)} sizes: a run needs a 'resolution'")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {**asdict(self), "problems": self.problems(), "warnings": self.warnings()}


def check_source(source: Source) -> Findings:
    """Look at every row and every image of a source.

    Raises:
        UserError: If it cannot be opened at all.
    """
    rows = source.open()
    found = _look_at_rows(rows)
    sizes: Counter[tuple[int, int]] = Counter()
    images: set[bytes] = set()
    pairs: set[bytes] = set()
    usable = 0
    for row, seen in work_ahead(rows, range(len(rows)), _decode):
        if isinstance(seen, BadPair):
            found.corrupt += 1
            if len(found.corrupt_at) < SHOWN:
                found.corrupt_at.append(f"{rows.place(row)}: {seen}")
            continue
        usable += int(rows.labels[row] in (0.0, 1.0))
        (zero, zero_size), (one, one_size) = seen
        sizes.update([zero_size, one_size])
        for digest in (zero, one):
            found.repeated_images += digest in images
            images.add(digest)
        found.same_images += zero == one
        prompt = str(rows.prompts[row]).encode()
        pair = hashlib.sha256(b"".join(sorted((zero, one))) + prompt).digest()
        found.repeated_pairs += pair in pairs
        pairs.add(pair)
    found.labels["usable"] = usable
    found.sizes = {f"{w} x {h}": n for (h, w), n in sizes.most_common()}
    found.aspects = _histogram(sizes)
    return found


def _look_at_rows(rows: Rows) -> Findings:
    labels = rows.labels
    names = {"image 0": 1.0, "image 1": 0.0, "tie": 0.5}
    counts = {name: int((labels == value).sum()) for name, value in names.items()}
    counts["none"] = int(np.isnan(labels).sum())
    illegal = np.flatnonzero(~(np.isin(labels, (0.0, 0.5, 1.0)) | np.isnan(labels)))
    groups = pc.value_counts(rows.prompts)
    per_prompt = np.asarray(groups.field("counts"))
    return Findings(
        rows=len(rows),
        labels=counts,
        prompts=len(per_prompt),
        empty_prompts=int(pc.sum(pc.equal(rows.prompts, "")).as_py() or 0),
        pairs_per_prompt={
            "median": float(np.median(per_prompt)) if len(per_prompt) else 0.0,
            "mean": float(per_prompt.mean()) if len(per_prompt) else 0.0,
            "max": float(per_prompt.max(initial=0)),
        },
        illegal=len(illegal),
        illegal_at=[
            f"{rows.place(row)}: {describe_label(float(labels[row]))}"
            for row in illegal[:SHOWN].tolist()
        ],
    )


_Seen = tuple[bytes, tuple[int, int]]
"""Hash of an image's bytes, and its height and width."""


def _decode(row: int, pair: tuple[bytes, bytes]) -> tuple[_Seen, _Seen]:
    def look(data: bytes) -> _Seen:
        size = image_size(data)
        preprocess(data, geometry(size, AS_IS, NO_DRAWS), AS_IS)
        return hashlib.sha256(data).digest(), size

    return look(pair[0]), look(pair[1])


def _histogram(sizes: Counter[tuple[int, int]]) -> dict[str, int]:
    bounds = (0.0, *ASPECTS, float("inf"))
    names = [
        f"below {ASPECTS[0]:g}",
        *(f"{low:g} to {high:g}" for low, high in pairwise(ASPECTS)),
        f"{ASPECTS[-1]:g} and more",
    ]
    counts = [
        sum(n for (h, w), n in sizes.items() if low <= w / h < high)
        for low, high in pairwise(bounds)
    ]
    return {name: count for name, count in zip(names, counts, strict=True) if count}


def print_check(found: Findings, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        print_json(found.as_dict())
        return
    labels = {f"label: {name}": count for name, count in found.labels.items() if name != "usable"}
    per = found.pairs_per_prompt
    counts: dict[str, object] = {
        **labels,
        "illegal labels": found.illegal,
        "damaged or missing images": found.corrupt,
        "pairs to learn from": found.usable,
        "prompts": found.prompts,
        "empty prompts": found.empty_prompts,
        "pairs of a prompt: median, mean, most": (
            f"{per['median']:g}, {per['mean']:.1f}, {per['max']:g}"
        ),
        "repeated images": found.repeated_images,
        "repeated pairs": found.repeated_pairs,
        "pairs of one image": found.same_images,
        **{f"size {size}": n for size, n in list(found.sizes.items())[:10]},
        **{f"width / height {name}": n for name, n in found.aspects.items()},
    }
    rows = [(name, str(count)) for name, count in counts.items()]
    print_table((Column("what"), Column("count")), rows, f"{found.rows} rows")
    for line in (*found.illegal_at, *found.corrupt_at):
        typer.echo(f"- {line}")
    for line in found.warnings():
        print_text(f"warning: {line}", "yellow")
    for line in found.problems():
        print_text(f"a run would refuse this: {line}", "red")
