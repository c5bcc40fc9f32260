"""Row: images, scored by ``bench score`` and looked at by ``bench data check``."""

import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from commands import fork
from experiment import Setting
from judges import SECRET, Wrong, refused, told
from PIL import Image
from rows import Row, Try, sample
from spoiled import inputs

SIDE = 32
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
0 0 32 32 rectfill
showpage
%%EOF
"""


def _noise(mode: str = "RGB", side: int = SIDE) -> Image.Image:
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _wide(kind: str, dtype: type, factor: float = 1) -> bytes:
    values = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE) * factor
    return _saved(Image.fromarray(values.astype(dtype)), kind)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, *chunks: bytes, bits: int = 1) -> bytes:
    """A PNG of grey that says what size it has; its rows are all there, compressed."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    row = bytes(1 + (width * bits + 7) // 8)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    parts = (_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _text_bomb() -> bytes:
    """A text of 100 MB in some hundred kilobytes."""
    return _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))


def _looping_tiff() -> bytes:
    """A directory that says that it is its own next one."""
    data = bytearray(_saved(_noise(), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    return bytes(data)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(_noise(), "JPEG", exif=exif)


PNG = _saved(_noise(), "PNG")
GOOD: dict[str, Callable[[], bytes]] = {
    kind: partial(_saved, _noise(), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
} | {
    mode: partial(_saved, _noise(mode), kind)
    for mode, kind in {"1": "PNG", "L": "PNG", "P": "PNG", "CMYK": "JPEG", "YCbCr": "JPEG"}.items()
} | {
    "RGBA": lambda: _saved(_noise("RGBA"), "PNG"),
    "grey with alpha": lambda: _saved(_noise("LA"), "PNG"),
    "16 bits, grey": lambda: _wide("PNG", np.uint16, 65535),
    "turned by EXIF": _turned,
    "several frames": lambda: _saved(_noise(), "GIF", save_all=True, append_images=[_noise("L")]),
    "512 pixels wide": lambda: _saved(_noise(side=512), "PNG"),
}  # fmt: skip
"""Images that are scored."""
BAD: dict[str, Callable[[], bytes]] = {
    "EPS": lambda: EPS,
    "EPS of DOS": lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS,
    "PPM": lambda: _saved(_noise(), "PPM"),
    "ICO": lambda: _saved(_noise(), "ICO"),
    "PDF": lambda: _saved(_noise(), "PDF"),
    "TGA": lambda: _saved(_noise(), "TGA"),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    "a private text": lambda: SECRET.encode() * 20,
    "nothing": lambda: b"",
    "an LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "cut short": lambda: PNG[: len(PNG) // 2],
    "a wrong sum": lambda: PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "only a head": lambda: PNG[:33],
    "no size": lambda: _png(0, 0),
    "more pixels than memory": lambda: _png(100_000, 100_000 // 8)[:100_000],
    "1 bit, 20000 x 20000": lambda: _png(20_000, 20_000),
    "floats": lambda: _wide("TIFF", np.float32),
    "floats of NaN": lambda: _wide("TIFF", np.float32, float("nan")),
    "32 bits": lambda: _wide("TIFF", np.int32, 2**30),
}  # fmt: skip
"""Images that are not scored, and are named, while the others are."""
EITHER: dict[str, Callable[[], bytes]] = {
    "13500 x 13500 at 1 bit": lambda: _png(13_500, 13_500),
    "2 x 900": lambda: _png(2, 900, bits=8),
    "1 x 1": lambda: _png(1, 1, bits=8),
    "1 x 60000": lambda: _png(1, 60_000, bits=8),
    "a text of 100 MB": lambda: _png(SIDE, SIDE, _text_bomb(), bits=8),
    "a profile of nonsense": lambda: _png(SIDE, SIDE, _chunk(b"iCCP", b"a\0\0nonsense"), bits=8),
    "a TIFF that loops": _looping_tiff,
}  # fmt: skip
"""Images of which both would be right."""


def _score(make: Callable[[], bytes], may_be: tuple[bool, ...], folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    (images / "a.png").write_bytes(make())
    _scored(images, may_be, folder)
    picture = (images / "a.png").read_bytes()
    columns = {"caption": ["a"] * 2, "jpg_0": [picture, PNG], "jpg_1": [PNG, PNG],
               "label_0": [1.0, 0.0], "label_1": [0.0, 1.0]}  # fmt: skip
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    done = fork(["data", "check", folder / "pairs.parquet"], folder, PATH=_path(folder))
    _nothing_started(folder)
    told(done)


def _scored(images: Path, may_be: tuple[bool, ...], folder: Path) -> None:
    """Score ``a.png`` beside a good image: it may have a score or not, and the other has one."""
    (images / "good.png").write_bytes(PNG)
    rows = [{"file": name, "prompt": "a dog"} for name in ("a.png", "good.png")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder / "scores.parquet"
    job = ["score", images, "--rewards", "mini-clip", "--prompts", folder / "prompts.jsonl"]
    done = fork([*job, "--out", out], folder, PATH=_path(folder))
    _nothing_started(folder)
    told(done)
    if not out.exists():
        raise Wrong(f"one image stops all: {done.last()}")
    table = pq.read_table(out).to_pylist()
    found = {row["file"]: row["score"] for row in table}
    if found.get("good.png") is None:
        raise Wrong(f"one image stops all: {done.last()}")
    if (found.get("a.png") is not None) not in may_be:
        raise Wrong(f"the image {'has' if False in may_be else 'lacks'} a score: {done.last()}")
    if found.get("a.png") is None and "a.png" not in done.stdout + done.stderr:
        raise Wrong("the image that has no score is not named")


def _path(folder: Path) -> str:
    """A PATH on which a program lies that decoders would start."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("gs", "gswin32c", "djpeg", "cjpeg", "convert"):
        (programs / name).write_text(f"#!/bin/sh\necho {name} >> {folder / 'started'}\n")
        (programs / name).chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


def _nothing_started(folder: Path) -> None:
    if (folder / "started").exists():
        raise Wrong(f"a program was started: {(folder / 'started').read_text().split()[0]}")


def _pipe(folder: Path) -> None:
    (folder / "images").mkdir()
    os.mkfifo(folder / "images" / "a.png")
    told(fork(["score", folder / "images", "--rewards", "mini-aesthetic"], folder))
    _leads_out(lambda images: os.mkfifo(images / "b.png"), "b.png", folder)


def _leads_out(prepare: Callable[[Path], object], name: str, folder: Path) -> None:
    """A row names what is no file of the folder."""
    images = folder / "rows"
    images.mkdir()
    (folder / "outside.png").write_bytes(PNG)
    prepare(images)
    digest = hashlib.sha256(PNG).hexdigest()
    row = {"prompt": "a dog", "k": 0, "file": name, "sha256": digest}
    (images / "images.jsonl").write_text(json.dumps(row) + "\n")
    refused(fork(["score", images, "--rewards", "mini-clip"], folder))
    (folder / "rows.jsonl").write_text(json.dumps({"file": name, "prompt": "a dog"}) + "\n")
    job = ["score", images, "--rewards", "mini-clip", "--prompts", folder / "rows.jsonl"]
    refused(fork(job, folder))


OUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link out": (lambda images: (images / "b.png").symlink_to("../outside.png"), "b.png"),
    "a link to a secret": (lambda images: (images / "b.png").symlink_to("/etc/shadow"), "b.png"),
    "a path out": (lambda images: None, "../outside.png"),
    "an absolute path": (lambda images: None, "/etc/hostname"),
    "a link to a device": (lambda images: (images / "b.png").symlink_to("/dev/zero"), "b.png"),
    "a folder": (lambda images: (images / "b.png").mkdir(), "b.png"),
    "a missing file": (lambda images: None, "b.png"),
}
INDEX: dict[str, bytes] = {
    "an empty index": b"",
    "an index of no JSON": b"nonsense\n",
    "an index without keys": b'{"file": "good.png"}\n',
    "an index of numbers": b'{"prompt": 1, "k": "a", "file": 2, "sha256": 3}\n',
    "an index of lists": b"[1, 2]\n",
    "a private index": SECRET.encode(),
}


def _index(data: bytes, folder: Path) -> None:
    (folder / "good.png").write_bytes(PNG)
    (folder / "images.jsonl").write_bytes(data)
    refused(fork(["score", folder, "--rewards", "mini-clip"], folder))


def _spoiled(path: Path, folder: Path) -> None:
    source = path / "images.parquet"
    prompts = next((file for file in path.iterdir() if file.stem == "prompts"), None)
    given = ["--prompts", prompts] if prompts else []
    job = ["score", source if source.exists() else path, "--rewards", "mini-clip"]
    told(fork([*job, *given, "--out", folder / "x.parquet"], folder))


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = []
    for images, may_be in ((GOOD, (True,)), (BAD, (False,)), (EITHER, (True, False))):
        found += [Try(name, partial(_score, make, may_be)) for name, make in images.items()]
    found += [Try(name, partial(_leads_out, *it)) for name, it in OUT.items()]
    found += [Try(name, partial(_index, data)) for name, data in INDEX.items()]
    found.append(Try("a pipe as an image", _pipe))
    found = sample(found, rng, count)
    if more := count - len(found):
        place = setting.work / "spoiled-sources"
        made = inputs("score sources", place, more, int(rng.integers(2**31)))
        found += [Try(f"spoiled images {n}", partial(_spoiled, p)) for n, p in enumerate(made)]
    return found


ROW = Row("images", "images scored and checked", tries, 100)
