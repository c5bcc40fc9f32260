"""A storm that sees nothing wrong proves something only if it sees what is."""

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import table
import torch
from commands import Done
from damage import DAMAGES, kinds_of_files
from judges import LONGEST, SECRET, Wrong, follow, refused, succeeded, told
from PIL import Image
from rows import Row
from safetensors.torch import save_file


def done(code: int | None, stderr: str = "", stdout: str = "") -> Done:
    return Done(code, stdout, stderr, 1.0)


TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 1\n'
LINE = "bench: /a/b: expected a file, got a pipe: give a file\n"


@pytest.mark.parametrize(
    "bad",
    [
        done(None), done(1, TRACEBACK), done(0, TRACEBACK), done(1), done(1, "a line\n"),
        done(1, LINE + LINE), done(1, f"bench: {'a' * LONGEST}\n"), done(-9, LINE), done(3, LINE),
        done(1, f"bench: expected a number, got {SECRET}\n"), done(0, stdout=SECRET), done(2),
        done(0, "There appear to be 3 leaked semaphore objects\n"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_seen(bad: Done) -> None:
    for judge in (told, refused, succeeded):
        with pytest.raises(Wrong):
            judge(bad)


def test_what_is_right_is_taken() -> None:
    for good in (done(0), done(1, f"[1/2] training: done in 1 s\n{LINE}"), done(130, LINE)):
        assert told(good) is good
    assert refused(done(1, LINE), "/a/b", "PIPE")
    with pytest.raises(Wrong, match="not named"):
        refused(done(1, LINE), "/c")
    with pytest.raises(Wrong, match="taken as good"):
        refused(done(0))
    with pytest.raises(Wrong, match="code 1"):
        succeeded(done(1, LINE))


def test_a_mend_is_done_and_must_help(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    line = f"bench: {bad} is damaged: delete it (rm -r {bad}) and run the same command again\n"

    def command() -> Done:
        return done(1, line) if bad.exists() else done(0)

    bad.mkdir()
    assert follow(command, tmp_path).code == 0
    with pytest.raises(Wrong, match="does not help"):
        follow(lambda: done(1, line), tmp_path)
    with pytest.raises(Wrong, match="lies elsewhere"):
        follow(lambda: done(1, "bench: damaged: rm -r /etc/none\n"), tmp_path)


def _picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(stream, "PNG")
    return stream.getvalue()


def _table(path: Path) -> None:
    pq.write_table(pa.table({"name": ["a", "b"], "score": [1.0, 2.0]}), path)


def _tensors(path: Path) -> None:
    save_file({"a": torch.ones(3)}, path, {"state": "{}"})


FILES: Mapping[str, Callable[[Path], object]] = {
    "a.png": lambda path: path.write_bytes(_picture()),
    "a.parquet": _table,
    "a.safetensors": _tensors,
    "a.json": lambda path: path.write_text(json.dumps({"a": [1, {"b": True}]})),
    "a.jsonl": lambda path: path.write_text('{"a": 1}\n{"a": "b"}\n'),
    "a.md": lambda path: path.write_text("one 1"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_leaves_another_file(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](path)
    before = path.read_bytes()
    DAMAGES[kind](path, np.random.default_rng(1))
    assert not path.is_file() or path.read_bytes() != before or not os.access(path, os.R_OK)


def test_files_are_told_apart_by_kind(tmp_path: Path) -> None:
    for name in ("0123456789abcdef", "fedcba9876543210"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    found = kinds_of_files(tmp_path)
    assert {kind: len(files) for kind, files in found.items()} == {"*/a.png": 2}


def test_the_table_of_a_document_is_renewed_by_rows(tmp_path: Path) -> None:
    rows = {name: Row(name, f"about {name}", lambda *_: [], 1) for name in ("a", "b", "c")}
    path = tmp_path / "page.md"
    path.write_text(f"head\n{table.BEGIN}\n{table.HEAD}{table.END}\ntail\n")
    table.refresh(path, rows, {"c": (3, 3), "a": (2, 1)})
    table.refresh(path, rows, {"a": (2, 2), "b": (1, 1)})
    counts = {"a": (2, 2), "b": (1, 1), "c": (3, 3)}
    whole = table.markdown(rows, counts)
    assert path.read_text() == f"head\n{table.BEGIN}\n{whole}{table.END}\ntail\n"
    assert "| about a (`a`) | 2 | 2 |" in whole
