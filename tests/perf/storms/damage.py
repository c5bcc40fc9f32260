"""Ways to damage a file that lies in a store, in a result or in the folder of a run."""

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

Damage = Callable[[Path, np.random.Generator], None]


def flip(path: Path, rng: np.random.Generator) -> None:
    """Change one bit in place, and so under every other name that the file has."""
    data = bytearray(path.read_bytes())
    if data:
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Lose the end."""
    os.truncate(path, int(rng.integers(1, max(2, path.stat().st_size))))


def empty(path: Path, rng: np.random.Generator) -> None:
    """Lose all bytes but not the file."""
    os.truncate(path, 0)


def delete(path: Path, rng: np.random.Generator) -> None:
    """Lose the file."""
    path.unlink()


def exchange(path: Path, rng: np.random.Generator) -> None:
    """Put another file of the same kind in its place, which a reader can read."""
    other = _OTHER.get(path.suffix, _other_text)(path, rng)
    path.unlink()
    path.write_bytes(other)


def folder(path: Path, rng: np.random.Generator) -> None:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()
    (path / "something").write_text("something")


def pipe(path: Path, rng: np.random.Generator) -> None:
    """Put a pipe in its place, from which nothing ever comes."""
    path.unlink()
    os.mkfifo(path)


def dangle(path: Path, rng: np.random.Generator) -> None:
    """Put a link in its place that leads nowhere."""
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def lock_out(path: Path, rng: np.random.Generator) -> None:
    """Take every permission away."""
    path.chmod(0)


DAMAGES: dict[str, Damage] = {
    "a bit flipped": flip, "truncated": truncate, "emptied": empty, "deleted": delete,
    "exchanged": exchange, "a folder": folder, "a pipe": pipe, "a dangling link": dangle,
} | ({} if os.geteuid() == 0 else {"not readable": lock_out})  # fmt: skip
"""By what is said of the file. Root reads whatever has no permissions."""


def kinds_of_files(root: Path, among: Iterable[Path] = ()) -> Mapping[str, list[Path]]:
    """Files below a folder, by their paths with ids and numbers left out.

    ``among`` are folders of it that count; default: all.
    """
    found: dict[str, list[Path]] = {}
    places = list(among) or [root]
    for path in sorted(root.rglob("*")):
        if path.is_file() and any(path.is_relative_to(place) for place in places):
            kind = re.sub(r"[0-9a-f]{16}(?:_\d+)?", "*", path.relative_to(root).as_posix())
            found.setdefault(kind, []).append(path)
    return found


def _other_png(path: Path, rng: np.random.Generator) -> bytes:
    with Image.open(path) as image:
        pixels = rng.integers(256, size=(image.height, image.width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _other_parquet(path: Path, rng: np.random.Generator) -> bytes:
    """With another value in the last column of numbers; without a row where there is none."""
    table = pq.read_table(path)
    floats = [n for n, f in enumerate(table.schema) if pa.types.is_floating(f.type)]
    if floats and len(table):
        field = table.schema.field(floats[-1])
        values = table.column(floats[-1]).to_pylist()
        values[rng.integers(len(values))] = 0.5
        table = table.set_column(floats[-1], field, pa.array(values, field.type))
    else:
        table = table.slice(1)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _other_tensors(path: Path, rng: np.random.Generator) -> bytes:
    """With one value of one tensor another."""
    with safe_open(path, framework="pt") as stream:
        names, metadata = sorted(stream.keys()), stream.metadata()
        tensors = {name: stream.get_tensor(name) for name in names}
    names = [name for name in names if tensors[name].is_floating_point() and tensors[name].numel()]
    tensor = tensors[names[rng.integers(len(names))]].view(-1)
    tensor[int(rng.integers(len(tensor)))] = 0.25
    return save({name: value.contiguous() for name, value in tensors.items()}, metadata)


def _other_json(path: Path, rng: np.random.Generator) -> bytes:
    raw = json.loads(path.read_text())
    return json.dumps(_changed(raw), indent=1).encode() + b"\n"


def _other_lines(path: Path, rng: np.random.Generator) -> bytes:
    *lines, last = path.read_text().splitlines()
    return "".join(
        f"{line}\n" for line in (*lines, json.dumps(_changed(json.loads(last))))
    ).encode()


def _changed(value: Any) -> Any:
    """A value whose last number, or text, is another."""
    if isinstance(value, dict) and value:
        *rest, (key, last) = value.items()
        return {**dict(rest), key: _changed(last)}
    if isinstance(value, list) and value:
        return [*value[:-1], _changed(value[-1])]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value or ''}0"


def _other_text(path: Path, rng: np.random.Generator) -> bytes:
    data = path.read_bytes()
    digit = re.search(rb"[1-8]", data)
    if digit is None:
        return data + b"1\n"
    return data[: digit.start()] + b"%d" % (int(digit[0]) + 1) + data[digit.end() :]


_OTHER: dict[str, Callable[[Path, np.random.Generator], bytes]] = {
    ".png": _other_png, ".parquet": _other_parquet, ".safetensors": _other_tensors,
    ".json": _other_json, ".jsonl": _other_lines,
}  # fmt: skip


def remove(path: Path) -> None:
    """Delete whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
