"""The files of an image set: names, and an index of prompts and hashes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from trainers.errors import UserError
from trainers.files import clear, clear_parts, sha256_file, tell, write_text
from trainers.input.paths import inside, is_regular
from trainers.input.text import as_text, parse_json, read_jsonl
from trainers.locks import locked
from trainers.sealed import Seals
from trainers.seeds import derive

INDEX = "images.jsonl"
SCORES = "scores.parquet"
"""Where the scores of a folder's images are kept beside them."""
LOCK = ".lock"
Key = tuple[str, int]
"""What tells the images of a set apart, and what the noise of an image depends on beside the seed:
a text, usually the prompt, and a number."""
Batch = Sequence[Key]
"""Images that are drawn together: on that, the last bits of each depend."""


def image_name(prompt: str, k: int) -> str:
    """File name of an image: safe for any prompt, and the same whatever the prompt's id."""
    return f"{derive(0, 'file name', prompt):016x}_{k}.png"


def write_index(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows of an image set: prompt, k, file, sha256."""
    write_text(folder / INDEX, "".join(json.dumps(row) + "\n" for row in rows))


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The rows of an image set: prompt, k, file, sha256.

    Raises:
        UserError: If a row is none, or a file is not in the folder itself, or not the one that was
            recorded.
    """
    rows = [_row(value, place) for place, value in read_jsonl(folder / INDEX)]
    for row in rows:
        name = row["file"]
        path = inside(folder, name)
        if path is None or Path(name).name != name or not is_regular(path):
            raise UserError(
                f"{folder / INDEX}: expected the name of a file beside it, got {name!r}"
            )
        if sha256_file(path) != row["sha256"]:
            raise UserError(f"{path} is not the image that {INDEX} records: make the images again")
    return rows


def _row(value: Any, place: object) -> dict[str, Any]:
    keys = ("prompt", "k", "file", "sha256")
    if not isinstance(value, dict) or not {*keys} <= value.keys() or type(value["k"]) is not int:
        raise UserError(f"{place}: expected {', '.join(keys)}, k a whole number: make it anew")
    for key in ("prompt", "file", "sha256"):
        as_text(value[key], place, f"a {key}")
    return value


def look(folder: Path, keys: Sequence[Key], size: int) -> tuple[dict[Key, str], list[Batch]]:
    """What is there of images that are wanted, and what has to be drawn for the rest.

    Args:
        folder: Where they would be.
        keys: The images.
        size: How many are drawn together.

    Returns:
        sha256 of those that are there as the index records them; and batches with all others: those
        of images that the index has, which were damaged, as they were drawn, so that each becomes
        the same to the bit.
    """
    clear_parts(folder)
    rows, lost = _recorded(folder)
    if lost:
        tell(f"{folder / INDEX}: {lost} rows are damaged: what they were of is looked at again")
    hashes: dict[Key, str] = {}
    old: dict[str, Batch] = {}
    new: list[Key] = []
    for key in keys:
        path, row = folder / image_name(*key), rows.get(key)
        if row and is_regular(path) and sha256_file(path) == row["sha256"]:
            hashes[key] = row["sha256"]
        elif row and "batch" in row:
            name = row["batch"][0]
            old[name] = old.get(name) or _mates(name, rows)
        else:
            new.append(key)
    return hashes, [*old.values(), *(new[n : n + size] for n in range(0, len(new), size))]


def _mates(name: str, rows: Mapping[Key, dict[str, Any]]) -> Batch:
    """The images that were drawn in a batch, in its order."""
    found = {key: row["batch"] for key, row in rows.items() if row.get("batch", [""])[0] == name}
    return sorted(found, key=lambda key: found[key][1])


def add_image(seals: Seals, key: Key, image: Image.Image) -> str:
    """Write an image unless it is there, and somebody may refer to it by its bytes.

    Gives the sha256 of what is there.
    """
    path = seals.path.with_name(image_name(*key))
    with locked(path.with_name(LOCK)):
        return seals.sha256(path) or seals.write(path, partial(image.save, format="PNG"))


def extend_index(
    folder: Path, hashes: Mapping[Key, str], batches: Iterable[Batch] = ()
) -> list[dict[str, Any]]:
    """Put images at the head of the index, by their sha256, and give their rows.

    Those of other images stay while their files do. The index of the folder also has which images
    were drawn in which batch.
    """
    mine = {
        key: {"prompt": key[0], "k": key[1], "file": image_name(*key), "sha256": sha256}
        for key, sha256 in hashes.items()
    }
    drawn = {
        key: [image_name(*batch[0]), place] for batch in batches for place, key in enumerate(batch)
    }
    with locked(folder / LOCK):
        before, _ = _recorded(folder)
        known = {key: row["batch"] for key, row in before.items() if "batch" in row} | drawn
        others = {
            key: row
            for key, row in before.items()
            if key not in mine and is_regular(folder / image_name(*key))
        }
        told = {k: row | ({"batch": known[k]} if k in known else {}) for k, row in mine.items()}
        write_index(folder, (told | others).values())
    return list(mine.values())


def _recorded(folder: Path) -> tuple[dict[Key, dict[str, Any]], int]:
    """The rows of the index by key, and the number of those that are damaged."""
    path, found, lost = folder / INDEX, {}, 0
    if path.exists() and not is_regular(path):
        clear(path)
        lost += 1
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = _row(parse_json(line.decode(), path), path)
            if row["file"] != image_name(row["prompt"], row["k"]) or not _placed(row):
                raise ValueError
            found[row["prompt"], row["k"]] = row
        except (UserError, ValueError):
            lost += 1
    return found, lost


def _placed(row: Mapping[str, Any]) -> bool:
    """Whether a row says nothing of a batch, or rightly its name and a place in it."""
    batch = row.get("batch", ["", 0])
    return isinstance(batch, list) and [type(part) for part in batch] == [str, int]
