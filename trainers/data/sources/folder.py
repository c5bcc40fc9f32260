"""Pairs of image files: jsonl lines ``{"prompt": ..., "winner": ..., "loser": ...}``.

The names of the images are relative to the folder of the file, and stay in it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from trainers.data.hashes import remembered_sha256
from trainers.data.sources.base import Rows, Source, file_hashes, read_inside, read_objects
from trainers.errors import UserError, refuse
from trainers.files import canonical_json, sha256_text
from trainers.input.text import as_text

FIELDS = ("prompt", "winner", "loser")


class Folder(Source):
    """A jsonl file beside its images."""

    name: ClassVar[str] = "folder"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)
    path: str
    """The jsonl file."""

    def open(self) -> Rows:
        """See the base class."""
        file = Path(self.path)
        lines: list[_Line] = []
        problems: list[str] = []
        for place, row in read_objects(file, FIELDS):
            try:
                prompt = as_text(row["prompt"], place)
                names = (as_text(row[key], place, f"the name of the {key}") for key in FIELDS[1:])
                lines.append(_Line(place, prompt, *names))
            except UserError as error:
                problems.append(str(error))
        refuse(problems)
        prompts = pa.chunked_array([pa.array([line.prompt for line in lines], pa.large_string())])
        return _FolderRows(prompts, np.ones(len(lines)), file, lines)


class _Line(NamedTuple):
    place: str
    prompt: str
    winner: str
    loser: str


@dataclass(frozen=True, eq=False)
class _FolderRows(Rows):
    file: Path
    lines: list[_Line]

    def images(self, row: int) -> tuple[bytes, bytes]:
        """See the base class."""
        line, folder = self.lines[row], self.file.parent
        return read_inside(folder, line.winner), read_inside(folder, line.loser)

    def place(self, row: int) -> str:
        """See the base class."""
        return self.lines[row].place

    def sha256(self) -> str:
        """See the base class."""
        names = sorted({name for line in self.lines for name in (line.winner, line.loser)})
        hashes = [remembered_sha256(self.file), file_hashes(self.file.parent, names)]
        return sha256_text(canonical_json(hashes))
