"""Images to score: folders with prompts in several forms, and parquet files."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.images.read import read_items
from trainers.errors import UserError


def encoded(red: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name, red in (("b.png", 2), ("a.PNG", 1), ("sub/c.png", 3)):
        (tmp_path / name).write_bytes(encoded(red))
    (tmp_path / "notes.md").write_text("no image")
    return tmp_path


def seen(items: list[Any]) -> list[tuple[str, int, str, int]]:
    return [(i.prompt, i.k, i.name, i.open().getpixel((0, 0))[0]) for i in items]


def test_lines_of_text_go_with_images_in_order_of_names(folder: Path) -> None:
    prompts = folder / "p.txt"
    prompts.write_text("one\none\n")
    assert seen(read_items(folder, prompts)) == [("one", 0, "a.PNG", 1), ("one", 1, "b.png", 2)]
    prompts.write_text("one\n")
    with pytest.raises(UserError, match="one line for each of the 2 images"):
        read_items(folder, prompts)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_rows_name_their_files_any_number_of_times(folder: Path, suffix: str) -> None:
    rows = [("sub/c.png", "three, or more"), ("b.png", "two"), ("sub/c.png", "two")]
    prompts = folder / f"p.{suffix}"
    if suffix == "jsonl":
        prompts.write_text("\n".join(json.dumps({"file": f, "prompt": p}) for f, p in rows))
    else:
        prompts.write_text("file,prompt\n" + "\n".join(f'{f},"{p}"' for f, p in rows))
    items = read_items(folder, prompts)
    assert seen(items) == [
        ("three, or more", 0, "sub/c.png", 3),
        ("two", 0, "b.png", 2),
        ("two", 1, "sub/c.png", 3),
    ]
    assert items[0].sha256 == items[2].sha256


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "absent.png"])
def test_names_must_not_leave_the_folder(folder: Path, name: str) -> None:
    inner = folder / "sub"
    (folder / "outside.png").write_bytes(encoded(9))
    prompts = folder / "p.jsonl"
    prompts.write_text(json.dumps({"file": name, "prompt": "x"}))
    with pytest.raises(UserError, match="expected the name of a file in"):
        read_items(inner, prompts)


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.jsonl", "{"), ("p.jsonl", '{"file": "b.png"}'), ("p.csv", "a,b\n1,2"), ("p.json", "[]")],
)
def test_other_prompt_files_are_refused_with_the_forms(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UserError, match="expected jsonl lines"):
        read_items(folder, folder / name)


def test_missing_things_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match="no file of prompts"):
        read_items(folder, folder / "absent.txt")
    with pytest.raises(UserError, match=r"has no images\.jsonl: give the prompts"):
        read_items(folder)
    with pytest.raises(UserError, match="no folder or parquet file"):
        read_items(folder / "absent")
    (folder / "p.jsonl").write_text("")
    with pytest.raises(UserError, match="expected images to score, got none"):
        read_items(folder, folder / "p.jsonl")


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_holds_images_and_prompts(tmp_path: Path, struct: bool) -> None:
    values: list[Any] = [encoded(n) for n in range(5)]
    if struct:
        values = [{"bytes": value, "path": None} for value in values]
    prompts = ["x", "y", "x", "y", "z"]
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": values, "caption": prompts}), path, row_group_size=2)
    items = read_items(path)
    assert [(p, k, red) for p, k, _, red in seen(items)] == [
        ("x", 0, 0), ("y", 0, 1), ("x", 1, 2), ("y", 1, 3), ("z", 0, 4),
    ]  # fmt: skip
    assert seen(items[::-1]) == seen(items)[::-1]
    with pytest.raises(UserError, match="leave --prompts out"):
        read_items(path, path)


def test_parquet_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [1], "words": ["a"]}), path)
    with pytest.raises(UserError, match="got image, words"):
        read_items(path)
    pq.write_table(pa.table({"image": ["a.png"], "prompt": ["a"]}), path)
    with pytest.raises(UserError, match="expected the bytes of an encoded image, got str"):
        read_items(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="expected a parquet file or a folder"):
        read_items(path)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_folder_as_the_datasets_library_lays_it_out(folder: Path, name: str) -> None:
    rows = [("b.png", "two"), ("sub/c.png", "three")]
    if name.endswith("jsonl"):
        lines = [json.dumps({"file_name": file, "text": text}) for file, text in rows]
    else:
        lines = ["file_name,text", *(f"{file},{text}" for file, text in rows)]
    (folder / name).write_text("\n".join(lines))
    expected = [("two", 0, "b.png", 2), ("three", 0, "sub/c.png", 3)]
    assert seen(read_items(folder)) == expected
    assert seen(read_items(folder, folder / name)) == expected


def test_a_folder_of_parquet_files_is_read_in_their_order(tmp_path: Path) -> None:
    for number in (0, 1):
        table = pa.table({"image": [encoded(number)], "prompt": ["x"]})
        pq.write_table(table, tmp_path / f"train-{number}.parquet")
    pq.write_table(pa.table({"score": [1.0]}), tmp_path / "scores.parquet")
    assert [(p, k, red) for p, k, _, red in seen(read_items(tmp_path))] == [
        ("x", 0, 0),
        ("x", 1, 1),
    ]


def test_prompts_may_lack_where_no_reward_reads_them(folder: Path, tmp_path: Path) -> None:
    assert [(i.prompt, i.name) for i in read_items(folder, needed=False)] == [
        ("", "a.PNG"), ("", "b.png"),
    ]  # fmt: skip
    (tmp_path / "only").mkdir()
    path = tmp_path / "only" / "images.parquet"
    pq.write_table(pa.table({"image": [encoded(5)]}), path)
    with pytest.raises(UserError, match="got image"):
        read_items(path)
    assert [i.prompt for i in read_items(path, needed=False)] == [""]
