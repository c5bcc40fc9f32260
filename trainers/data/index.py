"""The pairs of a run after every image was looked at once: what is read, and under which keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainers.data.cache import Bytes
from trainers.files import write_atomically

FURTHER = "column "
"""Before the names of further numbers in a file."""


@dataclass(frozen=True, eq=False)
class Index:
    """``N`` pairs whose images can be read, in the order of the source."""

    rows: NDArray[np.int64]
    """Row of the source."""
    prompts: tuple[str, ...]
    labels: NDArray[np.float64]
    """Probability that image 0 is preferred: 1, 0.5 or 0."""
    keys: Bytes
    """Keys of the encodings of images 0 and 1, ``[N, 2, 32]``."""
    micro: NDArray[np.int64]
    """Sizes and crops of images 0 and 1, ``[N, 2, 6]``: ``trainers.data.preprocess.Micro``."""
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Further numbers of each, by name, as the source has them."""

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.rows)

    def texts(self, prefixes: Sequence[str]) -> list[str]:
        """What is encoded: every caption after every prefix, once, and the empty text."""
        captions = dict.fromkeys(self.prompts)
        return [*dict.fromkeys(p + caption for p in prefixes for caption in captions), ""]

    def save(self, path: Path) -> None:
        """Write a parquet file, atomically; equal indices give equal bytes."""
        columns: dict[str, pa.Array] = {
            "row": pa.array(self.rows),
            "prompt": pa.array(self.prompts, pa.large_string()),
            "label": pa.array(self.labels),
        }
        for side in (0, 1):
            keys = [key.tobytes() for key in self.keys[:, side]]
            columns[f"key_{side}"] = pa.array(keys, pa.binary(32))
            flat = pa.array(np.ascontiguousarray(self.micro[:, side]).ravel())
            columns[f"micro_{side}"] = pa.FixedSizeListArray.from_arrays(flat, 6)
        columns |= {FURTHER + name: pa.array(values) for name, values in self.columns.items()}
        write_atomically(path, lambda part: pq.write_table(pa.table(columns), part))

    @staticmethod
    def load(path: Path) -> "Index":
        """Read what :meth:`save` wrote."""
        table = pq.read_table(path)
        count = len(table)
        keys = [b"".join(table[f"key_{side}"].to_pylist()) for side in (0, 1)]
        micro = [
            table[f"micro_{side}"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for side in (0, 1)
        ]
        return Index(
            table["row"].to_numpy(),
            tuple(table["prompt"].to_pylist()),
            table["label"].to_numpy(),
            np.stack([np.frombuffer(k, np.uint8).reshape(count, 32) for k in keys], axis=1),
            np.stack([m.reshape(count, 6) for m in micro], axis=1),
            {
                name.removeprefix(FURTHER): table[name].to_numpy()
                for name in table.column_names
                if name.startswith(FURTHER)
            },
        )
