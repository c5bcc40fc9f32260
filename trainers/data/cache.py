"""Tensors by content: rows of safetensors files, mapped into memory, found by a key of 32 bytes.

A file is written whole or not at all, and never changed. So a process may be killed at any time,
and two may fill one folder: at worst a row is there twice.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from trainers.errors import UserError
from trainers.files import write_atomically

Bytes = NDArray[np.uint8]
KEY, SUM = "key", "crc32"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
OPEN = 64
"""Files mapped at a time."""


class TensorCache:
    """A folder of tensors, each row of them under a key; seen as it was at the first look."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is made when something is first stored."""
        self.folder = folder
        self._shard = lru_cache(maxsize=OPEN)(_Shard)

    def add(self, keys: Sequence[bytes], tensors: Mapping[str, Tensor]) -> None:
        """Store row ``i`` of every tensor, ``[n, ...]`` and of a float type, under key ``i``."""
        key = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(-1, 32)
        rows = {name: values.cpu().contiguous() for name, values in tensors.items()}
        sums = torch.tensor(_sums([_as_bytes(rows[name]) for name in sorted(rows)]))
        digest = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
        path = self.folder / f"{digest}.safetensors"
        write_atomically(path, lambda part: save_file({KEY: key, SUM: sums, **rows}, str(part)))

    def refresh(self) -> None:
        """See what was added, by whichever process, since this object first looked."""
        self.__dict__.pop("_index", None)

    def missing(self, keys: Bytes) -> NDArray[np.bool_]:
        """Which of ``uint8[n, 32]`` are not there, ``bool[n]``."""
        return self._find(keys) < 0

    def get(self, keys: Bytes) -> dict[str, Tensor]:
        """The rows under ``uint8[n, 32]``, in float32, ``[n, ...]`` by name.

        Raises:
            UserError: If one is missing or damaged.
        """
        found = self._find(keys)
        if (found < 0).any():
            raise UserError(
                f"{self.folder} lacks {int((found < 0).sum())} encodings: run the same command "
                "again to make them"
            )
        _, paths, shards, rows = self._index
        parts: dict[str, list[Tensor]] = {}
        order: list[NDArray[np.int64]] = []
        for number in np.unique(shards[found]):
            here = np.flatnonzero(shards[found] == number)
            for name, values in self._shard(paths[number]).read(rows[found[here]]).items():
                parts.setdefault(name, []).append(values)
            order.append(here)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return {name: torch.cat(values)[back].float() for name, values in parts.items()}

    def _find(self, keys: Bytes) -> NDArray[np.int64]:
        """Position of each key in the index, -1 where it is not there."""
        known, *_ = self._index
        wanted = _as_strings(keys)
        if len(known) == 0:
            return np.full(len(wanted), -1)
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[places] == wanted, places, -1)

    @cached_property
    def _index(self) -> tuple[NDArray[np.bytes_], list[Path], NDArray[np.int64], NDArray[np.int64]]:
        """Sorted keys; files; and for each key the number of its file and its row in it."""
        paths = sorted(self.folder.glob("*.safetensors"))
        keys = [_Shard(path).keys for path in paths]
        sizes = [len(part) for part in keys]
        every = np.concatenate([np.empty((0, 32), np.uint8), *keys])
        shards = np.repeat(np.arange(len(paths)), sizes)
        rows = np.concatenate([np.empty(0, np.int64), *(np.arange(size) for size in sizes)])
        strings = _as_strings(every)
        order = np.argsort(strings, kind="stable")
        return strings[order], paths, shards[order], rows[order]


class _Shard:
    """One file, mapped: reading a row touches the pages of that row only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(self._bytes[:8].tobytes(), "little")
        header = json.loads(self._bytes[8:start].tobytes())
        self._entries = {k: v for k, v in sorted(header.items()) if k != "__metadata__"}
        self._start = start

    @property
    def keys(self) -> Bytes:
        return np.array(self._rows(KEY))

    def read(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        names = [name for name in self._entries if name not in (KEY, SUM)]
        data = {name: self._rows(name)[rows] for name in names}
        recorded = self._rows(SUM)[rows].view(np.int64).ravel()
        if _sums(list(data.values())) != recorded.tolist():
            raise UserError(f"{self.path} is damaged: delete it and run the same command again")
        return {name: self._tensor(name, data[name]) for name in names}

    def _rows(self, name: str) -> Bytes:
        """The bytes of a tensor, a line for each row."""
        entry = self._entries[name]
        first, last = (self._start + offset for offset in entry["data_offsets"])
        lines: Bytes = self._bytes[first:last].reshape(entry["shape"][0], -1)
        return lines

    def _tensor(self, name: str, data: Bytes) -> Tensor:
        entry = self._entries[name]
        values = torch.from_numpy(np.ascontiguousarray(data)).view(DTYPES[entry["dtype"]])
        return values.reshape(len(data), *entry["shape"][1:])


def as_keys(keys: Sequence[bytes]) -> Bytes:
    """Keys of 32 bytes as an array, ``uint8[n, 32]``."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)


def _as_bytes(values: Tensor) -> Bytes:
    found: Bytes = values.view(torch.uint8).reshape(len(values), -1).numpy()
    return found


def _as_strings(keys: Bytes) -> NDArray[np.bytes_]:
    """Keys as strings of 32 bytes, which NumPy can sort; they compare byte by byte."""
    return np.ascontiguousarray(keys).view("S32").reshape(len(keys))


def _sums(parts: list[Bytes]) -> list[int]:
    """CRC-32 of each row of all tensors together."""
    sums = [0] * len(parts[0])
    for part in parts:
        sums = [zlib.crc32(row.tobytes(), s) for row, s in zip(part, sums, strict=True)]
    return sums
