"""Ways to spoil the weights of a model: a tensor of a file, or the file."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from commands import MARK
from judges import SECRET
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
EVIL = f"import os, pathlib\npathlib.Path(os.environ[{MARK!r}], 'planted').touch()\n"
"""Code that leaves a file in the folder of its try, if anybody runs it."""


class Planted:
    """What runs when a pickle of it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, (EVIL,)


def _drop(tensors: Tensors, name: str) -> None:
    del tensors[name]


def _add(tensors: Tensors, name: str) -> None:
    tensors[f"another.{name}"] = tensors[name].clone()


def _reshape(tensors: Tensors, name: str) -> None:
    tensors[name] = torch.cat([tensors[name], tensors[name]])


def _fill(value: float) -> Callable[[Tensors, str], None]:
    def fill(tensors: Tensors, name: str) -> None:
        tensors[name].view(-1)[0] = value

    return fill


def _integers(tensors: Tensors, name: str) -> None:
    tensors[name] = tensors[name].to(torch.int64)


def _rename(tensors: Tensors, name: str) -> None:
    tensors[f"module.{name}"] = tensors.pop(name)


TENSORS: dict[str, Callable[[Tensors, str], None]] = {
    "missing": _drop, "unexpected": _add, "misshapen": _reshape, "NaN": _fill(float("nan")),
    "infinite": _fill(float("inf")), "of integers": _integers, "renamed": _rename,
}  # fmt: skip


def damage_tensor(fault: Callable[[Tensors, str], None], place: int, path: Path) -> None:
    """Give one tensor of a file a fault."""
    tensors = load_file(path)
    fault(tensors, sorted(tensors)[place % len(tensors)])
    save_file(tensors, path)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _pickled(path: Path) -> None:
    """Weights as a pickle alone."""
    path.unlink()
    path.with_suffix(".bin").write_bytes(pickle.dumps(Planted()))


def _replaced(data: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_bytes(data)

    return replace


def _elsewhere(path: Path) -> None:
    """A link that leads out of the folder."""
    outside = path.parents[2] / "outside.safetensors"
    path.rename(outside)
    path.symlink_to(outside)


def _piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _foldered(path: Path) -> None:
    path.unlink()
    path.mkdir()


FILES: dict[str, Callable[[Path], None]] = {
    "cut short": _cut, "empty": _replaced(b""), "a pickle": _pickled,
    "a pickle by its name": _replaced(pickle.dumps(Planted())),
    "an LFS pointer": _replaced(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
    "a head of 2^60 bytes": _replaced((2**60).to_bytes(8, "little") + b"{}"),
    "a head of nonsense": _replaced((4).to_bytes(8, "little") + b"abcd"),
    "a private text": _replaced(SECRET.encode() * 9),
    "a link out": _elsewhere, "a pipe": _piped, "a folder": _foldered, "missing": Path.unlink,
}  # fmt: skip
