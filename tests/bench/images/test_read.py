"""Images to score: folders with prompts in several forms, and parquet files."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.images.folder import INDEX
from bench.images.read import read_items, unnamed_images
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


def test_a_table_of_any_kind_names_files(folder: Path) -> None:
    """The readers are those of prompt sets."""
    rows = [{"file_name": "b.png", "caption": "two"}, {"file_name": "a.PNG", "caption": "one"}]
    (folder / "p.json").write_text(json.dumps(rows))
    (folder / "p.tsv").write_text("file\tprompt\nb.png\ttwo\na.PNG\tone\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "p.parquet")
    for name in ("p.json", "p.tsv", "p.parquet"):
        found = [(i.prompt, i.name) for i in read_items(folder, folder / name)]
        assert found == [("two", "b.png"), ("one", "a.PNG")], name


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
    [
        ("p.jsonl", "{"),
        ("p.jsonl", '{"file": "b.png"}'),
        ("p.csv", "a,b\n1,2"),
        ("p.json", '{"a": 1}'),
    ],
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
    with pytest.raises(UserError, match="encoded image in column 'image', got string"):
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


def pictures(folder: Path, *names: str) -> None:
    """The red of image ``n`` is ``n``."""
    for n, name in enumerate(names):
        (folder / name).write_bytes(encoded(n))


def test_lines_go_with_numbered_images_by_their_numbers(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"img_{n}.png" for n in range(12)))
    (tmp_path / "p.txt").write_text("".join(f"prompt {n}\n" for n in range(12)))
    found = seen(read_items(tmp_path, tmp_path / "p.txt"))
    assert [(prompt, red) for prompt, _, _, red in found] == [(f"prompt {n}", n) for n in range(12)]


def test_names_that_have_two_orders_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "a2.png", "b10.png", "a10.png")
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(UserError, match=r"expected images in .* that have one order.*use jsonl"):
        read_items(tmp_path, tmp_path / "p.txt")


def test_images_that_no_prompt_names_are_known(folder: Path) -> None:
    pictures(folder, "extra.tif", "sub/d.jpg")
    (folder / "p.jsonl").write_text('{"file": "./sub/../b.png", "prompt": "x"}')
    assert unnamed_images(folder, read_items(folder, folder / "p.jsonl")) == ["a.PNG", "extra.tif"]
    (folder / "p.jsonl").write_text('{"file": "sub/c.png", "prompt": "x"}')
    found = unnamed_images(folder, read_items(folder, folder / "p.jsonl"))
    assert found == ["a.PNG", "b.png", "extra.tif", "sub/d.jpg"]


def link_out(path: Path) -> None:
    outside = path.parent.with_name(f"{path.parent.name}-outside.png")
    outside.write_bytes(encoded(9))
    path.symlink_to(outside)


WAYS = {
    "a link that leads out": link_out,
    "expected a file, got a pipe": os.mkfifo,
    "no file": lambda path: path.symlink_to("nowhere"),
    "got no bytes": Path.touch,
    "a pointer of Git LFS": lambda path: path.write_text("version https://git-lfs.github.com/x"),
    "expected an image of PNG": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0"),
}


@pytest.mark.parametrize("why", WAYS)
@pytest.mark.parametrize("prompts", ["p.txt", "p.jsonl", None])
def test_one_image_that_cannot_be_read_is_missing_alone(
    tmp_path: Path, why: str, prompts: str | None
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    names = ("0.png", "1.png", "2.png")
    pictures(folder, *names)
    (folder / "1.png").unlink()
    WAYS[why](folder / "1.png")
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    rows = [{"file": name, "prompt": name} for name in names]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = read_items(folder, prompts and tmp_path / prompts, needed=prompts is not None)
    with pytest.raises(UserError, match=why) as caught:
        items[1].open()
    assert "1.png" in str(caught.value)
    assert [item.open().getpixel((0, 0))[0] for item in items[::2]] == [0, 2]


def test_links_within_a_folder_are_followed(tmp_path: Path) -> None:
    """As those of the Hub's cache: snapshots of links to blobs."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "h").write_bytes(encoded(7))
    images = tmp_path / "snapshots" / "c0ffee"
    images.mkdir(parents=True)
    (images / "x.png").symlink_to("../../blobs/h")
    (images / "y.png").symlink_to("x.png")
    found = read_items(images, needed=False)
    assert seen(found) == [("", 0, "x.png", 7), ("", 1, "y.png", 7)]


def test_an_index_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).touch()
    with pytest.raises(UserError, match=r"images\.jsonl: expected images to score, got none"):
        read_items(tmp_path)


@pytest.mark.parametrize("value", [None, 1, True, 1.5, ["a"], {"en": "a"}, "", "  ", "\ud83d"])
def test_prompts_that_are_no_text_are_refused_with_their_place(folder: Path, value: object) -> None:
    rows = [{"file": "a.PNG", "prompt": "x"}, {"file": "b.png", "prompt": value}]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "p.json").write_text(json.dumps(rows))
    for name, place in (("p.jsonl", r"p\.jsonl:2"), ("p.json", r"p\.json row 1")):
        with pytest.raises(UserError, match=f"{place}: expected a prompt") as caught:
            read_items(folder, folder / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array(["a", None]), "row 1: expected text in column 'prompt', got null"),
        (pa.array([None, None]), "expected text in column 'prompt', got null"),
        (pa.array([["a"], ["b"]]), "expected text in column 'prompt', got list"),
        (pa.array([b"a", b"b"]), "expected text in column 'prompt', got binary"),
        (pa.array([1, 2]), "expected text in column 'prompt', got int64"),
        (pa.array([1, 2]).dictionary_encode(), "expected text in column 'prompt', got int64"),
        (pa.array([{"en": "a"}] * 2), "expected text in column 'prompt', got struct"),
        (pa.array(["a", " "]), "row 1: expected a prompt in column 'prompt', got none"),
    ],
)
def test_columns_that_are_no_prompts_are_refused_by_name(
    tmp_path: Path, column: pa.Array, told: str
) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [encoded(0), encoded(1)], "prompt": column}), path)
    with pytest.raises(UserError, match=rf"x\.parquet.*{told}"):
        read_items(path)


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_prompts_may_be_stored_as_any_text(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "x.parquet"
    prompts = pa.array(["a", "b", "a"]).cast(kind)
    pq.write_table(pa.table({"image": [encoded(n) for n in range(3)], "prompt": prompts}), path)
    assert [item.prompt for item in read_items(path)] == ["a", "b", "a"]


def test_a_null_among_images_is_missing_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [encoded(0), None, encoded(2)], "prompt": ["a", "b", "c"]})
    pq.write_table(table, path)
    items = read_items(path)
    assert [items[n].open().getpixel((0, 0))[0] for n in (0, 2)] == [0, 2]
    with pytest.raises(UserError, match=r"x\.parquet row group 0 row 1.*got null"):
        items[1].open()
