"""Pictures of a result folder that go onto its page, as many as fit, and the texts of prompts."""

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.results.pictures import read_images, read_picture
from bench.results.protocol import Arm, Protocol
from trainers.input.image import image_size

KINDS = {".png": "image/png", ".jpg": "image/jpeg"}
Key = tuple[str, int | None, str, int]
"""Arm, training seed, id of the prompt and number of the image."""
Row = Mapping[Any, Any]
"""Of the table of images."""


@dataclass(frozen=True)
class Picture:
    """A picture on the page."""

    id: str
    """What shows it names it by."""
    uri: str
    """Its bytes, as ``data:``."""
    width: int
    """Pixels."""
    height: int
    """Likewise."""


class Pictures:
    """Those of one folder."""

    def __init__(self, protocol: Protocol, prefix: str) -> None:
        """None yet; ``prefix`` begins their ids."""
        self.all: list[Picture] = []
        """Each once."""
        self.left_out = 0
        """Prompts of whose pictures the folder has some that did not fit."""
        self._prefix = prefix
        self._protocol = protocol
        self._numbers: dict[Key, int] = {}
        self._by_file: dict[str, int] = {}
        self._prompts: dict[str, str] = {}

    def prompt(self, name: str) -> str:
        """The text of a prompt, or its id where the folder does not say it."""
        return self._prompts.get(name, name)

    def get(self, arm: str, seed: int | None, prompt: str, k: int) -> Picture | None:
        """A picture; None if it is not there."""
        number = self._numbers.get((arm, seed, prompt, k))
        return None if number is None else self.all[number]

    def present(self, arm: Arm) -> NDArray[np.bool_]:
        """Which pictures of an arm are there, ``[S, P, K]``."""
        ids, images = self._protocol.prompts.ids, range(self._protocol.images.per_prompt)
        return np.array(
            [[[(arm.name, s, p, k) in self._numbers for k in images] for p in ids]
             for s in arm.seeds]
        )  # fmt: skip

    def numbers(self, arm: Arm, prompts: Sequence[str]) -> dict[int, int]:
        """Numbers of an arm's pictures by their places in order of seed, prompt and image."""
        images = self._protocol.images.per_prompt
        places = ((s, p, k) for s in arm.seeds for p in prompts for k in range(images))
        found = (self._numbers.get((arm.name, *place)) for place in places)
        return {place: number for place, number in enumerate(found) if number is not None}

    def add(self, folder: Path, images: pd.DataFrame, room: int) -> None:
        """Take prompts whole, all at the first seed and image before any at the second, that fit.

        Args:
            folder: The result folder.
            images: Its images, as :func:`bench.results.pictures.read_images` gives them.
            room: Characters that they may take.

        Raises:
            UserError: If a picture is missing or damaged.
        """
        self._prompts = dict(zip(images["prompt_id"], images["prompt"], strict=True))
        taken: set[str] = set()
        left: set[str] = set()
        for prompt, rows in _groups(images, self._protocol):
            new = {row["picture"]: row for _, row in rows if row["picture"] not in self._by_file}
            read = {name: _read(folder, row) for name, row in new.items()} if not left else {}
            room -= sum(len(picture.uri) for picture in read.values())
            if left or room < 0:
                left.add(prompt)
                continue
            taken.add(prompt)
            for name, picture in read.items():
                self._by_file[name] = len(self.all)
                self.all.append(replace(picture, id=f"{self._prefix}{len(self.all)}"))
            self._numbers |= {key: self._by_file[row["picture"]] for key, row in rows}
        self.left_out = len(left - taken)


def _groups(
    images: pd.DataFrame, protocol: Protocol
) -> Iterator[tuple[str, list[tuple[Key, Row]]]]:
    """Rows with a picture, of one prompt, seed and image number at a time, in order."""
    seeds = {(a.name, s): n for a in protocol.arms for n, s in enumerate(a.seeds)}
    order = {name: n for n, name in enumerate(protocol.prompts.ids)}
    groups: defaultdict[tuple[int, int, int], list[tuple[Key, Row]]] = defaultdict(list)
    for row in images.dropna(subset=["picture"]).to_dict("records"):
        seed = None if pd.isna(row["seed"]) else int(row["seed"])
        key = (str(row["arm"]), seed, str(row["prompt_id"]), int(row["k"]))
        if key[:2] in seeds and key[2] in order:
            groups[seeds[key[:2]], key[3], order[key[2]]].append((key, row))
    for (_, _, number), rows in sorted(groups.items()):
        yield protocol.prompts.ids[number], rows


def _read(folder: Path, row: Row) -> Picture:
    """A picture, its id to be given."""
    data = read_picture(folder, row["picture"], row["picture_sha256"])
    height, width = image_size(data)
    kind = KINDS[Path(row["picture"]).suffix]
    return Picture("", f"data:{kind};base64,{base64.b64encode(data).decode()}", width, height)


def pictures(folder: Path, protocol: Protocol, prefix: str, room: int) -> Pictures:
    """The pictures of a folder that fit into ``room`` characters; none if it has none.

    Raises:
        UserError: As :meth:`Pictures.add`; or if the table of images is damaged.
    """
    found = Pictures(protocol, prefix)
    images = read_images(folder)
    if images is not None:
        found.add(folder, images, room)
    return found
