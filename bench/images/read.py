"""Images to score and their prompts, wherever they lie."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from bench.images.folder import INDEX, SCORES, read_index
from bench.spec.prompt_files import COLUMNS, column_of, read_table
from trainers.data.sources.shards import LocalShard, Shards, as_bytes
from trainers.errors import UserError
from trainers.files import sha256_file
from trainers.input.paths import inside

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tiff")
IMAGE_COLUMNS = ("image", "jpg", "png")
FILE_COLUMNS = ("file", "file_name")
METADATA = ("metadata.jsonl", "metadata.csv")
"""What the ``datasets`` library calls the rows of a folder of images."""


@dataclass(frozen=True)
class Item:
    """One image with one prompt."""

    prompt: str
    k: int
    """Number of this image among those of its prompt."""
    name: str
    """What a message calls it."""
    sha256: str
    """Hash of the encoded image."""
    read: Callable[[], bytes]

    def open(self) -> Image.Image:
        """The decoded image.

        Raises:
            UserError: If it is damaged or no image.
        """
        try:
            with Image.open(io.BytesIO(self.read())) as image:
                image.load()
                return image
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{self.name}: expected an image, got {error}") from error


def read_items(source: Path, prompts: Path | None = None, needed: bool = True) -> list[Item]:
    """The images of a folder or of parquet files with their prompts.

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
    if prompts is None and not own:
        prompts = next((p for p in (source / name for name in METADATA) if p.is_file()), None)
    elif prompts is not None and source.is_file():
        raise UserError(f"{source} holds its prompts itself: leave --prompts out")
    if prompts is not None:
        lines = _from_text(source, prompts) if prompts.suffix == ".txt" else _from_rows(prompts)
        return _numbered(_from_files(source, lines, prompts))
    if own:
        return _from_index(source)
    files = [] if source.is_file() else _images(source)
    if files and not needed:
        return _numbered(_from_files(source, [(name, "") for name in files], source))
    found = [source] if source.is_file() else sorted(source.glob("*.parquet"))
    if (shards := [path for path in found if path.name != SCORES]) and not files:
        return _numbered(_from_parquet(shards, needed))
    raise UserError(
        f"{source} has no {INDEX}: give the prompts of its images by --prompts, or a folder "
        "that 'bench generate' wrote"
    )


def _images(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


Found = tuple[str, str, str, Callable[[], bytes]]
"""Prompt, name, sha256 and how to read the image."""


def _numbered(found: Iterator[Found]) -> list[Item]:
    counts: Counter[str] = Counter()
    items: list[Item] = []
    for prompt, name, sha256, read in found:
        items.append(Item(prompt, counts[prompt], name, sha256, read))
        counts[prompt] += 1
    if not items:
        raise UserError("expected images to score, got none")
    return items


def _from_index(folder: Path) -> list[Item]:
    return [
        Item(row["prompt"], row["k"], row["file"], row["sha256"], (folder / row["file"]).read_bytes)
        for row in read_index(folder)
    ]


def _from_text(folder: Path, prompts: Path) -> list[tuple[str, str]]:
    lines = [row[COLUMNS[0]] for row in read_table(prompts, COLUMNS)]
    files = _images(folder)
    if len(lines) != len(files):
        raise UserError(
            f"{prompts}: expected one line for each of the {len(files)} images in {folder}, in "
            f'order of their names, got {len(lines)}: use jsonl lines {{"file": ..., "prompt": '
            "...}} to say which is whose"
        )
    return list(zip(files, lines, strict=True))


def _from_rows(prompts: Path) -> list[tuple[str, str]]:
    try:
        rows = read_table(prompts, (*FILE_COLUMNS, *COLUMNS))
        return [
            (str(row[column_of(prompts, row, FILE_COLUMNS)]),
             str(row[column_of(prompts, row, COLUMNS)]))
            for row in rows
        ]  # fmt: skip
    except UserError as error:
        raise UserError(
            f'{prompts}: expected jsonl lines {{"file": ..., "prompt": ...}}, a table with these '
            f"columns, or a .txt with one prompt on a line: {error}"
        ) from error


def _from_files(folder: Path, lines: list[tuple[str, str]], prompts: Path) -> Iterator[Found]:
    hashes: dict[str, str] = {}
    for name, prompt in lines:
        path = inside(folder, name)
        if path is None or not path.is_file():
            raise UserError(f"{prompts}: expected the name of a file in {folder}, got {name!r}")
        if name not in hashes:
            hashes[name] = sha256_file(path)
        yield prompt, name, hashes[name], path.read_bytes


def _from_parquet(paths: Sequence[Path], needed: bool) -> Iterator[Found]:
    rows = Shards([LocalShard(path) for path in paths], ())
    image, prompt = (
        next((c for c in wanted if c in rows.names), None) for wanted in (IMAGE_COLUMNS, COLUMNS)
    )
    if image is None or (prompt is None and needed):
        raise UserError(
            f"{paths[0]}: expected a column {' or '.join(IMAGE_COLUMNS)} of encoded images and one "
            f"{' or '.join(COLUMNS)}, got {', '.join(rows.names)}"
        )
    texts = [""] * len(rows) if prompt is None else rows.table([prompt])[prompt].to_pylist()
    for row, text in enumerate(texts):
        read = partial(_encoded, rows, row, image)
        yield str(text), rows.place(row), hashlib.sha256(read()).hexdigest(), read


def _encoded(rows: Shards, row: int, column: str) -> bytes:
    (value,) = rows.values(row, (column,))
    encoded = as_bytes(value)
    if encoded is None:
        raise UserError(
            f"{rows.place(row)}, column {column!r}: expected the bytes of an encoded image, got "
            f"{type(value).__name__}"
        )
    return encoded
