"""Pairs of image files: jsonl lines ``{"prompt": ..., "winner": ..., "loser": ...}``.

The names of the images are relative to the folder of the file, and stay in it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from trainers.data.hashes import remembered_sha256
from trainers.data.sources.base import Rows, Source, file_hashes, read_inside
from trainers.data.sources.rankings import read_json
from trainers.files import canonical_json, sha256_text

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
        lines = read_json(file, FIELDS)
        prompts = pa.chunked_array([pa.array([str(r["prompt"]) for r in lines], pa.large_string())])
        return _FolderRows(prompts, np.ones(len(lines)), file, lines)


@dataclass(frozen=True, eq=False)
class _FolderRows(Rows):
    file: Path
    lines: list[dict[str, Any]]

    def images(self, row: int) -> tuple[bytes, bytes]:
        """See the base class."""
        winner, loser = (
            read_inside(self.file.parent, str(self.lines[row][key])) for key in FIELDS[1:]
        )
        return winner, loser

    def place(self, row: int) -> str:
        """See the base class."""
        return f"{self.file.name} item {row}"

    def sha256(self) -> str:
        """See the base class."""
        names = sorted({str(line[key]) for line in self.lines for key in FIELDS[1:]})
        hashes = [remembered_sha256(self.file), file_hashes(self.file.parent, names)]
        return sha256_text(canonical_json(hashes))
