"""The files of an image set: names, and an index of prompts and hashes."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from trainers.errors import UserError
from trainers.files import locked, sha256_file, write_atomically, write_text
from trainers.input.paths import inside
from trainers.seeds import derive

INDEX = "images.jsonl"
SCORES = "scores.parquet"
"""Where the scores of a folder's images are kept beside them."""
LOCK = ".lock"
Key = tuple[str, int]
"""What tells the images of a set apart, and what the noise of an image depends on beside the seed:
a text, usually the prompt, and a number."""


def image_name(prompt: str, k: int) -> str:
    """File name of an image: safe for any prompt, and the same whatever the prompt's id."""
    return f"{derive(0, 'file name', prompt):016x}_{k}.png"


def write_index(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the rows of an image set: prompt, k, file, sha256."""
    write_text(folder / INDEX, "".join(json.dumps(row) + "\n" for row in rows))


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The rows of an image set: prompt, k, file, sha256.

    Raises:
        UserError: If a file is not in the folder itself, or is not the one that was recorded.
    """
    rows = _rows(folder)
    for row in rows:
        name = str(row["file"])
        path = inside(folder, name)
        if path is None or Path(name).name != name or not path.is_file():
            raise UserError(
                f"{folder / INDEX}: expected the name of a file beside it, got {name!r}"
            )
        if sha256_file(path) != row["sha256"]:
            raise UserError(f"{path} is not the image that {INDEX} records: make the images again")
    return rows


def keep_intact(folder: Path, keys: Iterable[Key]) -> dict[Key, str]:
    """sha256 of those images of keys that are there as the index records them.

    The others of them leave the index and the folder, so that they can be made again.
    """
    with locked(folder / LOCK):
        rows = _recorded(folder)
        wanted = rows.keys() & set(keys)
        kept = {key: str(rows[key]["sha256"]) for key in wanted if _as_recorded(folder, rows[key])}
        for key in wanted - kept.keys():
            (folder / image_name(*key)).unlink(missing_ok=True)
            del rows[key]
        if wanted - kept.keys():
            write_index(folder, rows.values())
    return kept


def add_image(folder: Path, key: Key, image: Image.Image) -> None:
    """Write an image unless there is one already, which somebody may refer to by its bytes."""
    path = folder / image_name(*key)
    with locked(folder / LOCK):
        if not path.exists():
            write_atomically(path, partial(image.save, format="PNG"))


def extend_index(folder: Path, hashes: Mapping[Key, str]) -> list[dict[str, Any]]:
    """Put images at the head of the index, by their sha256, and give their rows.

    Those of other images stay while their files do.
    """
    mine = {
        key: {"prompt": key[0], "k": key[1], "file": image_name(*key), "sha256": sha256}
        for key, sha256 in hashes.items()
    }
    with locked(folder / LOCK):
        others = {
            key: row
            for key, row in _recorded(folder).items()
            if key not in mine and (folder / image_name(*key)).is_file()
        }
        write_index(folder, (mine | others).values())
    return list(mine.values())


def _recorded(folder: Path) -> dict[Key, dict[str, Any]]:
    """The rows of the index by key; none where no image set has been finished."""
    if not (folder / INDEX).is_file():
        return {}
    return {(row["prompt"], row["k"]): row for row in _rows(folder)}


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]


def _as_recorded(folder: Path, row: dict[str, Any]) -> bool:
    path = folder / image_name(row["prompt"], row["k"])
    return path.is_file() and sha256_file(path) == row["sha256"]
