"""The files of an image set: names, and an index of prompts and hashes."""

import json
from pathlib import Path
from typing import Any

from trainers.errors import UserError
from trainers.files import inside, sha256_file, write_text
from trainers.seeds import derive

INDEX = "images.jsonl"


def image_name(prompt: str, k: int) -> str:
    """File name of an image: safe for any prompt, and the same whatever the prompt's id."""
    return f"{derive(0, 'file name', prompt):016x}_{k}.png"


def write_index(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows of an image set: prompt, k, file, sha256."""
    write_text(folder / INDEX, "".join(json.dumps(row) + "\n" for row in rows))


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The rows of an image set: prompt, k, file, sha256.

    Raises:
        UserError: If a file is not in the folder itself, or is not the one that was recorded.
    """
    rows = [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]
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
