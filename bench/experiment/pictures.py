"""The images of an experiment: an index of all, and the few that its result folder holds."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from bench.experiment.prepare import Experiment
from bench.images.folder import image_name
from bench.results.pictures import PICTURES, SCHEMA, read_pictures
from bench.spec.matrix import CONTROL
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.files import clear, write_bytes
from trainers.input.image import open_rgb
from trainers.input.paths import is_regular, read_bytes

SMALL, THUMBNAIL, QUALITY = 128, 256, 85
"""Pixels of the longer side: of images that are kept as they are, and of what others become; and
the quality of these, as JPEG has it."""
MEGABYTE = 10**6
COLUMNS = {
    "arm": "arm", "seed": "train_seed", "prompt_id": "prompt_id", "k": "k",
    "sha256": "image_sha256",
}  # fmt: skip
"""Columns of the table that those of scores become."""
Picture = tuple[str, bytes]
"""Its place in a result folder, and the file."""


def collect_images(
    experiment: Experiment, store: Store, scores: pa.Table, folder: Path
) -> pa.Table:
    """Write the declared pictures into a result folder, and give the table of all scored images.

    Pictures are taken prompt by prompt, so that of each all arms are there, until the declared
    limit is reached. One whose image is no longer in the store stays if the folder has it.

    Args:
        experiment: What was run.
        store: Where the images are.
        scores: As :func:`bench.experiment.collect.collect` gives them.
        folder: The result folder, perhaps with pictures of before.
    """
    images = _distinct(scores.select([*COLUMNS.values()])).rename_columns([*COLUMNS])
    places = {}
    for pictures in _within_limit(experiment, store, images, folder):
        for sha256, (place, data) in pictures.items():
            write_bytes(folder / place, data)
            places[sha256] = place, hashlib.sha256(data).hexdigest()
    prompts = dict(experiment.prompts.items)
    shipped = [places.get(sha256, (None, None)) for sha256 in images["sha256"].to_pylist()]
    further = {
        "prompt": [prompts[name] for name in images["prompt_id"].to_pylist()],
        "picture": [place for place, _ in shipped],
        "picture_sha256": [sha256 for _, sha256 in shipped],
    }
    columns = {name: images[name] for name in COLUMNS} | further
    return pa.table({name: columns[name] for name in SCHEMA.names}, SCHEMA)


def _distinct(table: pa.Table) -> pa.Table:
    """The rows of a table, each once, in the order in which they come first."""
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by(table.column_names).aggregate([("row", "min")])
    return table.take(first["row_min"].sort())


def _within_limit(
    experiment: Experiment, store: Store, images: pa.Table, folder: Path
) -> Iterator[dict[str, Picture]]:
    """The pictures of each declared prompt, by sha256 of the image, while the limit allows."""
    declared, old = experiment.spec.pictures, _old_pictures(folder)
    sets = {(entry.arm, entry.seed): entry.images for entry in experiment.sets}
    kept, control = {None, *experiment.spec.seeds[: declared.seeds]}, {CONTROL, f"{CONTROL}'"}
    room = declared.limit_mb * MEGABYTE
    for name, prompt in experiment.prompts.items[: declared.prompts]:
        found: dict[str, Picture] = {}
        for row in images.filter(pc.equal(images["prompt_id"], name)).to_pylist():
            shown = row["seed"] in kept and row["arm"] not in control
            if not shown or row["k"] >= declared.per_prompt or row["sha256"] in found:
                continue
            path = sets[row["arm"], row["seed"]].output(store) / image_name(prompt, row["k"])
            picture = old.get(row["sha256"]) or _picture(path, row["sha256"])
            if picture is not None:
                found[row["sha256"]] = picture
        room -= sum(len(data) for _, data in found.values())
        if room < 0:
            return
        yield found


def _picture(path: Path, sha256: str) -> Picture | None:
    """The picture of an image in a store; None if that image is not there any more."""
    data = read_bytes(path) if is_regular(path) else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    suffix, encoded = encode_picture(data)
    return f"{PICTURES}/{sha256}.{suffix}", encoded


def clear_pictures(folder: Path, images: pa.Table) -> None:
    """Delete the pictures of a result folder that its table of images does not name."""
    named = {folder / place for place in images["picture"].unique().to_pylist() if place}
    if (folder / PICTURES).is_dir():
        for path in (folder / PICTURES).iterdir():
            if path not in named:
                clear(path)


def _old_pictures(folder: Path) -> dict[str, Picture]:
    """Places and bytes of the pictures of a folder by sha256 of the image, if all are whole."""
    try:
        return {Path(place).stem: (place, data) for place, data in read_pictures(folder)}
    except UserError:  # There are none yet, or they are damaged: made anew from the store.
        return {}


def encode_picture(data: bytes) -> Picture:
    """Suffix and file of the picture of an image that was written as PNG.

    A small one is kept to the byte; of a larger one a thumbnail in JPEG.
    """
    image = open_rgb(data)
    if max(image.size) <= SMALL:
        return "png", data
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return "jpg", stream.getvalue()
