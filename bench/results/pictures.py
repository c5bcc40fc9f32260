"""Which images were scored, and those that a result folder holds: ``images.parquet``.

The pictures themselves lie in ``pictures/``, by the sha256 of the image: small ones as they were
generated, of larger ones a thumbnail. They are data: nothing renders them again.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from bench.results.files import IMAGES, damaged, read_data
from trainers.input.paths import read_bytes

PICTURES = "pictures"
SCHEMA = pa.schema(
    {
        "arm": pa.string(),
        "seed": pa.int64(),
        "prompt_id": pa.string(),
        "prompt": pa.string(),
        "k": pa.int64(),
        "sha256": pa.string(),
        "picture": pa.string(),
        "picture_sha256": pa.string(),
    }
)
"""``seed`` is null for the base model, the number of the pair for the control; ``sha256`` is that
of the image; ``picture`` a path inside the folder, null if it holds none, with its sha256."""
_PLACE = re.compile(rf"{PICTURES}/[0-9a-f]{{64}}\.(png|jpg)")


def read_images(folder: Path) -> pd.DataFrame | None:
    """The images of a result folder, in the columns of ``SCHEMA``; None where it tells of none.

    Whole numbers are of pandas' ``Int64``, which knows null.

    Raises:
        UserError: If their table, or the protocol, is missing or damaged.
    """
    table = read_data(folder, IMAGES)
    if table is None:
        return None
    if table.schema != SCHEMA:
        raise damaged(folder / IMAGES, "not the columns of images")
    if wrong := [p for p in table["picture"].unique().to_pylist() if p and not _PLACE.fullmatch(p)]:
        raise damaged(folder / IMAGES, f"{wrong[0]!r} is no place of a picture")
    images: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return images


def read_picture(folder: Path, picture: str, sha256: str) -> bytes:
    """A picture of a result folder, encoded.

    Args:
        folder: The result folder.
        picture: Its place there, as the table of images has it.
        sha256: Of the file, likewise.

    Raises:
        UserError: If it is missing, or not the one that was recorded.
    """
    data = read_bytes(folder / picture)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise damaged(folder / picture, f"{IMAGES} records sha256 {sha256[:16]}")
    return data


def read_pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every picture of a result folder once, by its place there; nothing where it has none.

    Raises:
        UserError: As :func:`read_images` and :func:`read_picture`.
    """
    images = read_images(folder)
    if images is not None:
        shipped = images.dropna(subset=["picture"]).drop_duplicates("picture")
        for picture, sha256 in zip(shipped["picture"], shipped["picture_sha256"], strict=True):
            yield picture, read_picture(folder, picture, sha256)
