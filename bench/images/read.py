"""Images to score and their prompts, wherever they lie."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from bench.images.folder import INDEX, SCORES, read_index
from bench.images.order import in_order
from bench.spec.prompt_files import COLUMNS, read_table
from trainers.data.sources.shards import LocalShard, Shards, as_bytes
from trainers.errors import UserError, listed
from trainers.input.image import SUFFIXES, BadImage, open_image
from trainers.input.parquet import as_texts, holds_images
from trainers.input.paths import inside, read_bytes, refuse_leaving

IMAGE_COLUMNS = ("image", "jpg", "png")
FILE_COLUMNS = ("file", "file_name")
METADATA = ("metadata.jsonl", "metadata.csv")
"""What the ``datasets`` library calls the rows of a folder of images."""
AS_ROWS = 'use jsonl lines {"file": ..., "prompt": ...} to say which is whose'


@dataclass(frozen=True)
class Item:
    """One image with one prompt."""

    prompt: str
    k: int
    """Number of this image among those of its prompt."""
    name: str
    """What a message calls it."""
    sha256: str
    """Hash of the encoded image; empty if it has none that can be read."""
    read: Callable[[], bytes]
    """Gives the encoded image, or raises a UserError."""

    def open(self) -> Image.Image:
        """The image as :func:`trainers.input.image.open_image` gives it.

        Raises:
            UserError: If it cannot be read, is damaged or no image.
        """
        try:
            return open_image(self.read())
        except BadImage as error:
            raise UserError(f"{self.name}: {error}") from error


def read_items(source: Path, prompts: Path | None = None, needed: bool = True) -> list[Item]:
    """The images of a folder or of parquet files with their prompts.

    An image that cannot be read is among them all the same: to open it says why.

    Args:
        source: A folder of images, a parquet file or a folder of them, with a column of encoded
            images (``image``, ``jpg`` or ``png``; bytes, or a struct with ``bytes`` as the
            ``datasets`` library writes it) and one of prompts (``prompt``, ``caption``, ``text``).
        prompts: The prompts of a folder's images: jsonl or csv with ``file`` (or ``file_name``) and
            ``prompt`` (or ``caption``, ``text``) on each line, or text with one prompt on a line
            for the images in order of name. An image may have several lines. None takes the
            ``images.jsonl`` that ``bench generate`` writes, or ``metadata.jsonl`` or ``.csv``.
        needed: Whether prompts are: without them, images that nothing is said of have "".

    Raises:
        UserError: If something is missing or does not fit together.
    """
    if not source.is_dir() and not source.is_file():
        raise UserError(f"no folder or parquet file {source}: give one that holds images")
    own = source.is_dir() and (source / INDEX).is_file()
    if prompts is not None and source.is_file():
        raise UserError(f"{source} holds its prompts itself: leave --prompts out")
    prompts = prompts or prompts_beside(source)
    if prompts is not None:
        from_lines = prompts.suffix.lower() == ".txt"
        lines = (_from_text if from_lines else _from_rows)(source, prompts, needed)
        return _numbered(_from_files(source, lines))
    if own:
        return _from_index(source)
    files = [] if source.is_file() else _images(source)
    if files and not needed:
        return _numbered(_from_files(source, [(name, "") for name in files]))
    found = [source] if source.is_file() else sorted(source.glob("*.parquet"))
    if (shards := [path for path in found if path.name != SCORES]) and not files:
        refuse_leaving(source, shards)
        return _numbered(_from_parquet(shards, needed))
    raise UserError(
        f"{source} has no {INDEX}: give the prompts of its images by --prompts, or a folder "
        "that 'bench generate' wrote"
    )


def prompts_beside(source: Path) -> Path | None:
    """The file in a folder of images that says their prompts, unless that is an index of ours."""
    if not source.is_dir() or (source / INDEX).is_file():
        return None
    return next((path for path in (source / name for name in METADATA) if path.is_file()), None)


def unnamed_images(folder: Path, items: Sequence[Item]) -> list[str]:
    """Names of images that are not among items, of a folder and of those that items lie in."""
    named = {os.path.normpath(item.name) for item in items}
    folders = {Path(), *(Path(name).parent for name in named)}
    there = {str(inner / name) for inner in folders for name in _images(folder / inner)}
    return sorted(there - named)


def _images(folder: Path) -> list[str]:
    """Names in a folder that end as those of images do, whatever they stand for."""
    paths = folder.iterdir()
    return sorted(p.name for p in paths if p.suffix.lower() in SUFFIXES and not p.is_dir())


Found = tuple[str, str, str, Callable[[], bytes]]
"""Prompt, name, sha256 and how to read the image, as an :class:`Item` has them."""


def _numbered(found: Iterable[Found]) -> list[Item]:
    counts: Counter[str] = Counter()
    items: list[Item] = []
    for prompt, name, sha256, read in found:
        items.append(Item(prompt, counts[prompt], name, sha256, read))
        counts[prompt] += 1
    if not items:
        raise UserError("expected images to score, got none")
    return items


def _from_index(folder: Path) -> list[Item]:
    items = [
        Item(row["prompt"], row["k"], row["file"], row["sha256"],
             partial(read_bytes, folder / row["file"]))
        for row in read_index(folder)
    ]  # fmt: skip
    if not items:
        raise UserError(f"{folder / INDEX}: expected images to score, got none")
    return items


def _from_text(folder: Path, prompts: Path, needed: bool) -> list[tuple[str, str]]:
    lines = [row.text(COLUMNS, empty=not needed) for row in read_table(prompts, COLUMNS)]
    names = _images(folder)
    if len(lines) != len(names):
        raise UserError(
            f"{prompts}: expected one line for each of the {len(names)} images in {folder}, in "
            f"order of their names, got {len(lines)}: {AS_ROWS}"
        )
    files = in_order(names)
    if files is None:
        raise UserError(
            f"{prompts}: expected images in {folder} that have one order, as 0.png to 11.png do, "
            f"got names whose numbers can be sorted by value or as text, as {names[0]}: {AS_ROWS}"
        )
    return list(zip(files, lines, strict=True))


def _from_rows(folder: Path, prompts: Path, needed: bool) -> list[tuple[str, str]]:
    try:
        rows = read_table(prompts, (*FILE_COLUMNS, *COLUMNS))
        lines = [
            (row.place, row.text(FILE_COLUMNS, "the name of a file"),
             row.text(COLUMNS, empty=not needed))
            for row in rows
        ]  # fmt: skip
    except UserError as error:
        raise UserError(
            f'{error} (expected jsonl lines {{"file": ..., "prompt": ...}}, a table with these '
            "columns, or a .txt with one prompt on a line)"
        ) from error
    wrong = {name for name in {name for _, name, _ in lines} if not _is_name(folder, name)}
    for place, name, _ in lines:
        if name in wrong:
            raise UserError(f"{place}: expected the name of a file in {folder}, got {name[:100]!r}")
    return [(name, prompt) for _, name, prompt in lines]


def _is_name(folder: Path, name: str) -> bool:
    """Whether a name is that of something in a folder; links are looked at when it is opened."""
    if Path(name).is_absolute() or Path(os.path.normpath(name)).parts[:1] == ("..",):
        return False
    path = folder / name
    return os.path.lexists(path) and not path.is_dir()


def _from_files(folder: Path, lines: Sequence[tuple[str, str]]) -> Iterator[Found]:
    seen: dict[str, tuple[str, Callable[[], bytes]]] = {}
    for name, prompt in lines:
        if name not in seen:
            seen[name] = _hashed(partial(_read_inside, folder, name))
        yield prompt, name, *seen[name]


def _read_inside(folder: Path, name: str) -> bytes:
    path = inside(folder, name)
    if path is None:
        raise UserError(f"{name}: expected a file in {folder}, got a link that leads out of it")
    return read_bytes(path)


def _from_parquet(paths: Sequence[Path], needed: bool) -> Iterator[Found]:
    rows = Shards([LocalShard(path) for path in paths], ())
    image, prompt = (
        next((c for c in wanted if c in rows.names), None) for wanted in (IMAGE_COLUMNS, COLUMNS)
    )
    if image is None or (prompt is None and needed):
        raise UserError(
            f"{paths[0]}: expected a column {' or '.join(IMAGE_COLUMNS)} of encoded images and one "
            f"{' or '.join(COLUMNS)}, got {listed(rows.names)}"
        )
    rows.require((image,), holds_images)
    found = None if prompt is None else rows.table({prompt: as_texts})[prompt]
    texts = [""] * len(rows) if found is None else found.to_pylist()
    for row, text in enumerate(texts):
        if needed and not text.strip():
            raise UserError(f"{rows.place(row)}: expected a prompt in column {prompt!r}, got none")
        yield text, rows.place(row), *_hashed(partial(_encoded, rows, row, image))


def _encoded(rows: Shards, row: int, column: str) -> bytes:
    (value,) = rows.values(row, (column,))
    encoded = as_bytes(value)
    if encoded is None:
        raise UserError(f"{rows.place(row)}, column {column!r}: expected an image, got null")
    return encoded


def _hashed(read: Callable[[], bytes]) -> tuple[str, Callable[[], bytes]]:
    """The hash of an encoded image, and how to read it; if that fails, it always will."""
    try:
        return hashlib.sha256(read()).hexdigest(), read
    except UserError as error:
        return "", partial(_fail, str(error))


def _fail(message: str) -> bytes:
    raise UserError(message)
