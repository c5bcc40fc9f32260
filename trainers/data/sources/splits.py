"""Splits of a data set by the names of files, as the Hub's libraries tell them apart."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath, PurePosixPath

from trainers.errors import UserError

WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words in names of files or folders by the split they name; between them are no letters."""


def split_of(path: PurePath) -> str | None:
    """The split that a path names: that of its file, or else of the folder nearest to it."""
    names = (path.stem, *reversed(path.parts[:-1]))
    words = (word for name in names for word in re.split("[^a-z]+", name.lower()))
    return next((WORDS[word] for word in words if word in WORDS), None)


def one_split(paths: Sequence[PurePath], place: str, prefix: str, key: str) -> None:
    """Refuse files that are several splits: who trains on all is judged on what was learnt.

    Args:
        paths: The files, relative to what the user has named.
        place: What a message calls that.
        prefix: What comes before a pattern of ``paths`` in a setting.
        key: The setting.

    Raises:
        UserError: If so; it says which setting takes one of them.
    """
    splits = Counter(split for path in paths if (split := split_of(path)) is not None)
    if len(splits) < 2:
        return
    there = [split for split in dict.fromkeys(WORDS.values()) if split in splits]
    wanted, found = there[0], ", ".join(f"{split} ({splits[split]})" for split in there)
    pattern = _pattern([path for path in paths if split_of(path) == wanted])
    raise UserError(
        f"{place}: expected the files of one split, got {found}: choose one, as by "
        f'{key}: "{prefix}{pattern}"'
    )


def _pattern(paths: Sequence[PurePath]) -> str:
    """A pattern that takes the files of a split, by the word in their names or their folder's."""
    first, folders = paths[0], {path.parent for path in paths}
    folder = PurePosixPath(*first.parent.parts)
    while len(folders) > 1 and folder.name and split_of(PurePath(folder.name)) is None:
        folder = folder.parent
    word = re.match(f"(?i).*?(?<![a-z])({'|'.join(WORDS)})(?![a-z])[^a-z0-9]?", first.stem)
    if word:
        start = f"{word.group()}*{first.suffix}"
        return str(folder / start) if len(folders) == 1 else f"**/{start}"
    return str(folder / ("" if len(folders) == 1 else "**") / f"*{first.suffix}")
