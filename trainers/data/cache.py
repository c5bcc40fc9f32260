"""Tensors by content: rows of safetensors files, mapped into memory, found by a key of 32 bytes.

A file is written whole or not at all, and never changed. So a process may be killed at any time,
and two may fill one folder: at worst a row is there twice. The name of a file is a hash of its keys
and of what it says of its tensors, and every row has a checksum: only rows that are used have to be
read. A file that is found damaged is told of and deleted, to be made again.
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
from trainers.files import canonical_json, clear, tell, write_atomically
from trainers.input.paths import is_regular

Bytes = NDArray[np.uint8]
KEY, SUM = "key", "crc32"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
OPEN = 64
"""Files mapped at a time."""


class Lost(UserError):
    """Encodings that a cache is asked for are not there, or no longer."""


class _Damaged(Exception):
    """A file is not as it was written."""


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
        kinds = {name: (NAMES[values.dtype], values.shape) for name, values in rows.items()}
        path = self.folder / f"{_name(key.numpy(), kinds)}.safetensors"
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
            Lost: If one is missing or damaged; the file of a damaged one is deleted.
        """
        found = self._find(keys)
        if (found < 0).any():
            raise Lost(
                f"{self.folder} lacks {int((found < 0).sum())} encodings: run the same command "
                "again to make them"
            )
        try:
            return self._get(found)
        except _Damaged as error:
            _discard(Path(str(error)))
            self.refresh()
            raise Lost(
                f"{error} is damaged: run the same command again to make its encodings anew"
            ) from error

    def _get(self, found: NDArray[np.int64]) -> dict[str, Tensor]:
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
        whole = {path: _keys(path) for path in sorted(self.folder.glob("*.safetensors"))}
        for path in (path for path, found in whole.items() if found is None):
            _discard(path)
        paths = [path for path, found in whole.items() if found is not None]
        keys = [found for found in whole.values() if found is not None]
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
        """Refuse a file whose keys, or what it says of its tensors, are not what was written."""
        if not is_regular(path):
            raise _Damaged(path)
        self.path = path
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
            self._start = 8 + int.from_bytes(self._bytes[:8].tobytes(), "little")
            header = json.loads(self._bytes[8 : self._start].tobytes())
            self._entries = {k: v for k, v in sorted(header.items()) if k != "__metadata__"}
            self.keys = np.array(self._rows(KEY))
            kinds = {k: (self._entries[k]["dtype"], self._entries[k]["shape"]) for k in self._names}
            name = _name(self.keys, kinds)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
            raise _Damaged(path) from error
        if name != path.stem:
            raise _Damaged(path)

    @property
    def _names(self) -> list[str]:
        return [name for name in self._entries if name not in (KEY, SUM)]

    def read(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        try:
            data = {name: self._rows(name)[rows] for name in self._names}
            recorded = self._rows(SUM)[rows].view(np.int64).ravel()
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise _Damaged(self.path) from error
        if _sums(list(data.values())) != recorded.tolist():
            raise _Damaged(self.path)
        return {name: self._tensor(name, data[name]) for name in self._names}

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


def is_whole(path: Path) -> bool:
    """Whether a file of a cache is as it was written; reads all of it."""
    try:
        shard = _Shard(path)
        for row in range(len(shard.keys)):
            shard.read(np.array([row]))
    except _Damaged:
        return False
    return True


def _keys(path: Path) -> Bytes | None:
    """The keys of a file; None if it is damaged."""
    try:
        return _Shard(path).keys
    except _Damaged:
        return None


def _discard(path: Path) -> None:
    tell(f"{path} is not what was written there (its checksums differ): it is made again")
    clear(path)


def _name(keys: Bytes, kinds: Mapping[str, tuple[str, Sequence[int]]]) -> str:
    """Name of a file, by its keys and the types and shapes of its tensors."""
    return hashlib.sha256(canonical_json(kinds).encode() + keys.tobytes()).hexdigest()[:32]


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
