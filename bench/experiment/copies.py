"""The images of a result folder, copied out of the store under names that say what they are."""

import re
import shutil
import unicodedata
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from bench.images.folder import INDEX
from bench.results.files import IMAGES, read_manifest, read_protocol
from bench.results.pictures import read_images
from bench.stages.generate import GenerateStage
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.files import sha256_file, writable_folder, write_atomically
from trainers.input.paths import is_regular
from trainers.input.text import read_jsonl

LONGEST = 100
"""Bytes of a name at most, number and suffix aside."""


def copy_images(folder: Path, store: Store, out: Path) -> int:
    """Copy every scored image to ``out/<number> <prompt>/<arm>, seed <seed>, <k>.png``.

    Args:
        folder: The result folder.
        store: Where its images are.
        out: Made if need be; files of these names there are written over.

    Returns:
        How many there are.

    Raises:
        UserError: If the folder has no index of images, or the store lacks one of them; nothing
            is written then.
    """
    table = read_images(folder)
    if table is None:
        raise UserError(
            f"{folder} holds no {IMAGES}, which says what the images are: run the 'bench ablate' "
            "again that has written it"
        )
    files, images = _files(folder, store), table.to_dict("records")
    lost = [row for row in images if row["sha256"] not in files]
    if lost:
        first = _told(lost[0]["arm"], lost[0]["seed"], lost[0]["k"])
        raise UserError(
            f"{store.root} lacks {len(lost)} of the {len(images)} images of {folder}, the first "
            f"{first} of {lost[0]['prompt_id']!r}: name the store by --store, or run the "
            "'bench ablate' again that has made them"
        )
    numbers = {name: n for n, name in enumerate(read_protocol(folder).prompts.ids, 1)}
    arms = distinct(table["arm"].unique())
    writable_folder(out)
    for row in images:
        prompt = f"{numbers[row['prompt_id']]:05d} {safe(row['prompt'])}".strip()
        name = _told(arms[row["arm"]], row["seed"], row["k"])
        source = files[row["sha256"]]
        write_atomically(out / prompt / f"{name}.png", partial(shutil.copyfile, source))
    return len(images)


def _told(arm: str, seed: int | None, k: int) -> str:
    return f"{arm}{'' if pd.isna(seed) else f', seed {seed}'}, {k}"


def _files(folder: Path, store: Store) -> dict[str, Path]:
    """The images of a result folder that are in a store as they were made, by sha256."""
    found: dict[str, Path] = {}
    for stage in read_manifest(folder).stages:
        index = store.folder(stage.kind, stage.id) / INDEX
        if stage.kind != GenerateStage.kind or not is_regular(index):
            continue
        for _, row in read_jsonl(index):
            path = index.with_name(row["file"])
            if is_regular(path) and sha256_file(path) == row["sha256"]:
                found[row["sha256"]] = path
    return found


def safe(text: str) -> str:
    """A text as part of a file's name: of all but letters, digits and a few signs, a blank.

    It takes ``LONGEST`` bytes at most, and may be empty.
    """
    words = re.sub(r"[^\w+.,'-]+", " ", unicodedata.normalize("NFC", text)).strip(" .")
    return words.encode()[:LONGEST].decode(errors="ignore").strip(" .")


def distinct(names: Iterable[str]) -> dict[str, str]:
    """A safe name for each name, none of them twice, be letters large or small."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        made, n = safe(name), 1
        while made.casefold() in taken or not made:
            n += 1
            made = f"{safe(name)} ({n})".strip()
        taken.add(made.casefold())
        found[name] = made
    return found
