"""Row: prompts, pairs and names."""

import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from commands import Done, fork
from experiment import Setting
from judges import SECRET, Wrong, refused, succeeded, told
from PIL import Image
from rows import Row, Try, sample
from spoiled import inputs

Judge = Callable[[Done], Done]
MANY = 20_000
GOOD = "a small red circle on grey"
MOST = 6.0
"""Seconds of a processor to read so many prompts and draw one image, which takes the most."""


def _rows(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(**columns: list[object]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _unlike(value: object) -> bytes:
    """A line of jsonl whose prompt is no text."""
    return _rows({"prompt": GOOD}, {"prompt": value})


PROMPTS: dict[str, tuple[str, bytes, Judge]] = {
    "nothing": ("jsonl", b"", refused),
    "blank lines": ("txt", b"\n\n  \n", told),
    "null": ("jsonl", _unlike(None), refused),
    "a number": ("jsonl", _unlike(7), refused),
    "NaN": ("jsonl", b'{"prompt": NaN}\n', refused),
    "a list": ("jsonl", _unlike(["a"]), refused),
    "a map": ("jsonl", _unlike({"a": 1}), refused),
    "a boolean": ("jsonl", _unlike(True), refused),
    "an empty prompt": ("jsonl", _unlike(""), told),
    "half a pair": ("jsonl", b'{"prompt": "\\ud83d"}\n', refused),
    "a key twice": ("jsonl", b'{"prompt": "a", "prompt": "b"}\n', refused),
    "no such column": ("jsonl", _rows({"text_": GOOD}), refused),
    "a raw U+2028": ("jsonl", '{"prompt": "a\u2028b"}\n'.encode(), succeeded),
    "a raw U+0085": ("jsonl", '{"prompt": "a\x85b"}\n'.encode(), succeeded),
    "many levels": ("jsonl", b"[" * 100_000 + b"\n", refused),
    "a number of 5000 digits": ("jsonl", b'{"prompt": ' + b"9" * 5000 + b"}\n", refused),
    "a private file": ("jsonl", f'{{"password": "{SECRET}"}}\n'.encode(), refused),
    "a private text as jsonl": ("jsonl", f"{SECRET}\n".encode(), refused),
    "a private id": ("jsonl", _rows({"prompt": None, "id": SECRET}), refused),
    "latin-1": ("txt", "caf\xe9\n".encode("latin-1"), refused),
    "UTF-16": ("txt", GOOD.encode("utf-16"), refused),
    "NUL": ("txt", b"a\0b\n", refused),
    "a byte order mark": ("txt", b"\xef\xbb\xbf" + GOOD.encode(), succeeded),
    "a mark before csv": ("csv", b"\xef\xbb\xbfprompt\n" + GOOD.encode(), succeeded),
    "an unquoted comma": ("csv", b"prompt\na dog, a cat\n", refused),
    "a short row": ("csv", b"id,prompt\n1,a\n2\n", refused),
    "an open quote": ("csv", b'prompt\n"a dog\n', refused),
    "only a header": ("csv", b"prompt\n", refused),
    "a long field": ("csv", b"prompt\n" + b"a" * 300_000 + b"\n", told),
    "columns of one name": ("csv", b"prompt,prompt\na,b\n", refused),
    "null in parquet": ("parquet", _parquet(prompt=["a", None]), refused),
    "numbers in parquet": ("parquet", _parquet(prompt=[1.0, 2.0]), refused),
    "bytes in parquet": ("parquet", _parquet(prompt=[b"\xff", b"a"]), refused),
    "lists in parquet": ("parquet", _parquet(prompt=[["a"], ["b"]]), refused),
    "no parquet": ("parquet", b"PAR1" + b"\0" * 100, refused),
    "an LFS pointer": ("parquet", b"version https://git-lfs.github.com/spec/v1\noid 1\n", refused),
    "an unknown suffix": ("docx", GOOD.encode(), refused),
}
NAMES = ("a" * 5000, "../../etc/passwd", "*" * 500, "[", "a\nb", " ", "", "~root/x",
         "//etc/shadow", "mini-test\u2028", "-", ".", "mini-devv", "s3://a/b.jsonl")  # fmt: skip
"""Of prompt sets."""


def _prompts(suffix: str, data: bytes, judge: Judge, folder: Path) -> None:
    path = folder / f"prompts.{suffix}"
    path.write_bytes(data)
    job = ["generate", "--prompts", path, "--steps", "1"]
    judge(fork([*job, "--out", folder / "images"], folder))


def _named(name: str, folder: Path) -> None:
    job = ["generate", "--prompts", name, "--limit", "1", "--steps", "1", "--out", "images"]
    refused(fork(job, folder))


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "p.jsonl")
    _named("p.jsonl", folder)


def _many(suffix: str, folder: Path) -> None:
    """Many prompts are read in a time that grows as they do."""
    path = folder / f"prompts.{suffix}"
    rows = [{"id": str(n), "prompt": f"{GOOD}, number {n}"} for n in range(MANY)]
    text = {
        "jsonl": lambda: _rows(*rows),
        "txt": lambda: "".join(f"{row['prompt']}\n" for row in rows).encode(),
        "csv": lambda: b"id,prompt\n" + b"".join(b'%d,"%s, %d"\n' % (n, GOOD.encode(), n)
                                                 for n in range(MANY)),
    }[suffix]()  # fmt: skip
    path.write_bytes(text)
    job = ["generate", "--prompts", path, "--limit", "1", "--steps", "1", "--out", "images"]
    before = os.times().children_user
    succeeded(fork(job, folder))
    if (took := os.times().children_user - before) > MOST:
        raise Wrong(f"{MANY} prompts took {took:.1f} s")


def _spoiled_prompts(path: Path, folder: Path) -> None:
    (file,) = path.iterdir()
    job = ["generate", "--prompts", file, "--limit", "1", "--steps", "1"]
    told(fork([*job, "--out", folder / "images"], folder))


def _spoiled_pairs(path: Path, folder: Path) -> None:
    files = {file.suffix: file for file in path.iterdir() if file.suffix != ".png"}
    if (path / "ranked.parquet").exists():
        source = f"{{name: rankings, path: {path / 'ranked.parquet'}}}"
    else:
        source = str(path if ".parquet" in files else next(iter(files.values())))
    told(fork(["data", "check", source], folder))


def _picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 99, 199)).save(stream, "PNG")
    return stream.getvalue()


def _pairs(**changes: object) -> bytes:
    """Two pairs as Pick-a-Pic's shards have them; None leaves a column out."""
    picture = _picture()
    columns: dict[str, object] = {
        "caption": ["a", "b"], "jpg_0": [picture] * 2, "jpg_1": [picture] * 2,
        "label_0": [1.0, 0.0], "label_1": [0.0, 1.0], "has_label": [True, True],
    } | changes  # fmt: skip
    return _parquet(**{name: column for name, column in columns.items() if column is not None})


PAIRS: dict[str, tuple[bytes, Judge]] = {
    "good": (_pairs(), succeeded),
    "labels as text": (_pairs(label_0=["1", "0"]), told),
    "labels as booleans": (_pairs(label_0=[True, False]), told),
    "labels left and right": (_pairs(label_0=["left", "right"]), told),
    "labels of NaN": (_pairs(label_0=[float("nan"), 1.0]), told),
    "labels beyond": (_pairs(label_0=[7.0, 1.0]), told),
    "null captions": (_pairs(caption=[None, "b"]), told),
    "captions as lists": (_pairs(caption=[["a"], ["b"]]), told),
    "captions that are no UTF-8": (_pairs(caption=[b"\xff", b"b"]), told),
    "null images": (_pairs(jpg_0=[None, _picture()]), told),
    "images as text": (_pairs(jpg_0=["a.png", "b.png"]), told),
    "images as numbers": (_pairs(jpg_0=[1, 2]), refused),
    "no images": (_pairs(jpg_0=None), refused),
    "no captions": (_pairs(caption=None), refused),
    "no rows": (_parquet(caption=[], jpg_0=[], jpg_1=[], label_0=[], has_label=[]), refused),
    "private columns": (_parquet(password=[SECRET]), refused),
}


def _pair_file(data: bytes, judge: Judge, folder: Path) -> None:
    (folder / "pairs.parquet").write_bytes(data)
    judge(fork(["data", "check", folder / "pairs.parquet"], folder))


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = [Try(f"prompts: {name}", partial(_prompts, *it)) for name, it in PROMPTS.items()]
    found += [Try(f"a set called {name[:20]!r}", partial(_named, name)) for name in NAMES]
    ends = ("jsonl", "txt", "csv")
    found += [Try(f"{MANY} prompts in {end}", partial(_many, end)) for end in ends]
    found += [Try("a pipe as prompts", _pipe)]
    found += [Try(f"pairs: {name}", partial(_pair_file, *it)) for name, it in PAIRS.items()]
    found = sample(found, rng, count)
    if more := count - len(found):
        for reader, run in (("prompt files", _spoiled_prompts), ("pair files", _spoiled_pairs)):
            place = setting.work / f"spoiled-{reader.split()[0]}"
            made = inputs(reader, place, (more + 1) // 2, int(rng.integers(2**31)))
            found += [Try(f"spoiled {reader} {n}", partial(run, p)) for n, p in enumerate(made)]
    return found[:count]


ROW = Row("texts", "prompts, pairs, names", tries, 150)
