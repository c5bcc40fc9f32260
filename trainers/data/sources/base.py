"""What a source of preference pairs is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainers.data.hashes import remembered_sha256
from trainers.errors import UserError, refuse
from trainers.input.paths import inside, is_regular, read_bytes
from trainers.input.text import read_json, read_jsonl
from trainers.registry import Settings

Labels = NDArray[np.float64]
MISSING, CONTRADICTED = np.inf, -np.inf
"""Stand for labels that are absent though somebody judged, and for two that contradict."""


class BadPair(Exception):
    """An image of a pair cannot be read: the pair is dropped and counted, the run goes on."""


@dataclass(frozen=True, eq=False)
class Rows(ABC):
    """A source that has been opened: prompts and labels are in memory, images on the disk."""

    prompts: pa.ChunkedArray
    """Strings, one a row."""
    labels: Labels
    """Probability that image 0 is preferred: 1, 0, or 0.5 for a tie. NaN where nobody judged; any
    other number is illegal."""
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, kw_only=True)
    """Further numbers of every row, by name; NaN where there is none."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @abstractmethod
    def images(self, row: int) -> tuple[bytes, bytes]:
        """The encoded images 0 and 1 of a row. Not to be called by two threads at a time.

        Raises:
            BadPair: If one is missing.
        """

    @abstractmethod
    def place(self, row: int) -> str:
        """What a message calls a row."""

    @abstractmethod
    def sha256(self) -> str:
        """Identity of what the rows say and of the bytes of the images, wherever they lie."""


class Source(Settings, ABC):
    """A source. Its fields say where the rows lie and how they are read."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Ends of the names of files that a path alone stands for it by, e.g. ``.json``."""

    @property
    def sequential(self) -> bool:
        """Whether images are far away: fit to be read once in their order, not at every step."""
        return False

    @abstractmethod
    def open(self) -> Rows:
        """Read prompts and labels.

        Raises:
            UserError: If something is missing. Labels are not checked yet.
        """


def read_objects(path: Path, fields: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Place and object of each item of a json list, or of each line of jsonl.

    Raises:
        UserError: If the file is missing or is no json, or objects lack a field.
    """
    if not path.exists():
        raise UserError(f"no preference pairs at {path}: give the path of a json or jsonl file")
    if path.suffix == ".json":
        value = read_json(path)
        if not isinstance(value, list):
            raise UserError(f"{path}: expected a list of objects, got a {type(value).__name__}")
        items = [(f"{path} item {number}", item) for number, item in enumerate(value)]
    else:
        items = list(read_jsonl(path))
    refuse(
        [
            f"{place}: expected an object with {', '.join(fields)}, got "
            + (f"one without {lacking}" if isinstance(item, dict) else f"a {type(item).__name__}")
            for place, item in items
            if (lacking := _lacking(item, fields))
        ]
    )
    return items


def _lacking(item: object, fields: Sequence[str]) -> str:
    return ", ".join(f for f in fields if not isinstance(item, dict) or f not in item)


def describe_label(label: float) -> str:
    """What a label says, legal or not."""
    special = {MISSING: "null or NaN", CONTRADICTED: "a label_1 that is not 1 - label_0"}
    return special.get(label, f"{label:g}")


def _path_in(folder: Path, name: str) -> Path:
    path = inside(folder, name)
    if path is None:
        raise UserError(f"expected the name of a file in {folder}, got {name!r}, which leads out")
    return path


def read_inside(folder: Path, name: str) -> bytes:
    """The bytes of a file of ``folder``.

    Raises:
        UserError: If ``name`` leads out of the folder.
        BadPair: If there is no such file, or it cannot be read.
    """
    path = _path_in(folder, name)
    try:
        return read_bytes(path)
    except UserError as error:
        raise BadPair(str(error)) from error


def file_hashes(folder: Path, names: Iterable[str]) -> list[str | None]:
    """sha256 of each file of a folder, None where there is none that can be read.

    Raises:
        UserError: If a name leads out of the folder.
    """
    return [_file_hash(path) for path in [_path_in(folder, name) for name in names]]


def _file_hash(path: Path) -> str | None:
    try:
        return remembered_sha256(path) if is_regular(path) else None
    except OSError:
        return None
