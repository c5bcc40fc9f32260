"""Sources of pairs: parquet shards, rankings, folders of files; names must not lead out."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.data import hashes
from trainers.data.sources import BadPair, Rows, make_source
from trainers.errors import UserError

Row = dict[str, Any]
Write = Callable[[Path, list[Row]], Path]
PICK_A_PIC = {
    "are_different": True, "best_image_uid": "u", "created_at": None, "has_label": True,
    "image_0_uid": "u", "image_0_url": "-", "image_1_uid": "v", "image_1_url": "-",
    "model_0": "m", "model_1": "n", "ranking_id": 7, "user_id": 3, "num_example_per_prompt": 4,
}  # fmt: skip
"""The columns of Pick-a-Pic v2 that nothing here depends on."""


def jpeg(number: int) -> bytes:
    """A small JPEG that shows its number."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (number * 5 % 256, 80, 120)).save(stream, "JPEG")
    return stream.getvalue()


def table(first: int, count: int) -> pa.Table:
    """Rows ``first`` and on in the schema of Pick-a-Pic v2."""
    return pa.Table.from_pylist(
        [
            {
                **PICK_A_PIC, "caption": f"prompt {i}", "jpg_0": jpeg(2 * i),
                "jpg_1": jpeg(2 * i + 1), "label_0": float(i % 2), "label_1": float(1 - i % 2),
            }
            for i in range(first, first + count)
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 rows in three files in two folders, in row groups of 4."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "data").mkdir()
    for number, (first, count) in enumerate(((0, 10), (10, 5), (15, 8))):
        path = folder / "data" / f"train-0000{number}.parquet"
        pq.write_table(table(first, count), path, row_group_size=4)
    return folder


def check_all(rows: Rows) -> None:
    assert len(rows) == 23
    assert rows.prompts.to_pylist() == [f"prompt {i}" for i in range(23)]
    for i in (0, 22, 9, 10, 3, 4, 14, 15, 22, 0):
        assert rows.images(i) == (jpeg(2 * i), jpeg(2 * i + 1))
    assert rows.labels.tolist() == [i % 2 for i in range(23)]
    assert rows.place(13) == "train-00001.parquet row group 0 row 3"
    assert rows.place(14) == "train-00001.parquet row group 1 row 0"


@pytest.mark.parametrize("place", ["", "data", "data/*.parquet", "**/train-*.parquet"])
def test_shards_are_one_table(shards: Path, place: str) -> None:
    """By folder or pattern, in the order of names; any row in any order."""
    check_all(make_source(str(shards / place)).open())


def test_some_files_of_a_folder(shards: Path) -> None:
    source = make_source({"name": "parquet", "path": str(shards), "files": "data/*-00001.parquet"})
    assert source.open().prompts.to_pylist() == [f"prompt {i}" for i in range(10, 15)]


def test_identity_is_of_content_not_of_place(shards: Path, tmp_path: Path) -> None:
    """Other names of folder and files are the same data; another order or one byte is not."""
    (tmp_path / "other").mkdir()
    for number, path in enumerate(sorted(shards.rglob("*.parquet"))):
        (tmp_path / "other" / f"{number}.parquet").write_bytes(path.read_bytes())
    moved = make_source(str(tmp_path / "other"))
    first = make_source(str(shards)).open().sha256()
    assert moved.open().sha256() == first
    (tmp_path / "other" / "0.parquet").rename(tmp_path / "other" / "9.parquet")
    assert moved.open().sha256() != first
    one = make_source(str(tmp_path / "other" / "9.parquet"))
    before = one.open().sha256()
    pq.write_table(table(0, 10).set_column(0, "are_different", [[False] * 10]), one.path)  # type: ignore[attr-defined]
    assert one.open().sha256() != before


def test_images_are_not_read_when_a_file_is_opened(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only captions and labels; then one row group for a row, and none for its neighbour."""
    asked: list[list[str]] = []
    groups: list[int] = []
    real_read, real_group = pq.ParquetFile.read, pq.ParquetFile.read_row_group

    def read(self: Any, columns: list[str]) -> pa.Table:
        asked.append(columns)
        return real_read(self, columns=columns)

    def read_row_group(self: Any, group: int, columns: list[str]) -> pa.Table:
        groups.append(group)
        return real_group(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read", read)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    rows = make_source(str(shards)).open()
    assert len(asked) == 3
    assert all(set(c) == {"caption", "label_0", "label_1", "has_label"} for c in asked)
    assert groups == []
    for i in (4, 5, 7, 4, 8, 4):
        rows.images(i)
    assert groups == [1, 2]


def test_images_as_the_datasets_library_writes_them(tmp_path: Path, write_parquet: Write) -> None:
    """A struct of bytes and path; no bytes is a bad pair, not the end."""
    image = {"bytes": jpeg(1), "path": None}
    raw = [
        {"caption": "a", "jpg_0": image, "jpg_1": image, "label_0": 1.0},
        {"caption": "b", "jpg_0": image, "jpg_1": {"bytes": None, "path": "x"}, "label_0": 1.0},
    ]
    rows = make_source(str(write_parquet(tmp_path / "p.parquet", raw))).open()
    assert rows.images(0) == (jpeg(1), jpeg(1))
    with pytest.raises(BadPair, match="jpg_1: no bytes"):
        rows.images(1)


@pytest.mark.parametrize("column", ["caption", "jpg_0", "jpg_1", "label_0"])
def test_a_missing_column_is_named(tmp_path: Path, write_parquet: Write, column: str) -> None:
    """Expected, got, and what to add."""
    row = {"caption": "a", "jpg_0": b"", "jpg_1": b"", "label_0": 1.0}
    path = write_parquet(tmp_path / "p.parquet", [{k: v for k, v in row.items() if k != column}])
    with pytest.raises(UserError, match=rf"expected the columns .*: add {column}$"):
        make_source(str(path)).open()


def test_a_column_that_only_some_files_have_is_refused(
    tmp_path: Path, write_parquet: Write
) -> None:
    """Were it filled with nulls, every row of the other files would pass for one never judged."""
    row = {"caption": "a", "jpg_0": b"", "jpg_1": b"", "label_0": 1.0}
    for first, second in (("0", "1"), ("1", "0")):
        write_parquet(tmp_path / f"{first}.parquet", [row | {"has_label": True}])
        write_parquet(tmp_path / f"{second}.parquet", [row])
        expected = rf"{second}\.parquet: expected the columns .*: add has_label$"
        with pytest.raises(UserError, match=expected):
            make_source(str(tmp_path)).open()


def test_what_is_no_source_is_refused(tmp_path: Path, write_parquet: Write) -> None:
    with pytest.raises(UserError, match=r"no preference pairs at .*nowhere\.parquet"):
        make_source(str(tmp_path / "nowhere.parquet")).open()
    with pytest.raises(UserError, match="no preference pairs at"):
        make_source(str(tmp_path)).open()
    (tmp_path / "text.parquet").write_text("no parquet at all")
    with pytest.raises(UserError, match=r"text\.parquet: expected a parquet file"):
        make_source(str(tmp_path / "text.parquet")).open()
    with pytest.raises(UserError, match="unknown source 'parket': did you mean 'parquet'"):
        make_source({"name": "parket", "path": "x"})
    row = {"caption": None, "jpg_0": b"", "jpg_1": b"", "label_0": 1.0}
    path = write_parquet(tmp_path / "p.parquet", [row | {"caption": "a"}, row])
    with pytest.raises(UserError, match="row 1: expected text in column 'caption', got null"):
        make_source(str(path)).open()


def test_the_hub_is_asked_only_if_downloads_are_allowed(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By repository, revision and pattern; offline, what is not there is named with the mend."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[dict[str, Any]] = []

    def snapshot(repository: str, **how: Any) -> str:
        asked.append({"repository": repository, **how})
        if how["local_files_only"]:
            raise LocalEntryNotFoundError("not here")
        return str(shards)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    place = {"name": "parquet", "path": "mirror/pick-a-pic@v2", "files": "data/*.parquet"}
    with pytest.raises(UserError, match=r"mirror/pick-a-pic@v2: not in the Hub's cache.*download"):
        make_source(place).open()
    check_all(make_source({**place, "download": True}).open())
    assert [a["local_files_only"] for a in asked] == [True, False]
    assert (asked[1]["repository"], asked[1]["revision"]) == ("mirror/pick-a-pic", "v2")
    assert asked[1]["repo_type"] == "dataset"
    assert "data/*.parquet" in asked[1]["allow_patterns"]


def test_the_hash_of_a_large_file_is_remembered_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "LARGE", 4)
    monkeypatch.setenv("DPO_BENCH_HOME", str(tmp_path / "home"))
    counted: list[Path] = []
    real = hashes.sha256_file
    monkeypatch.setattr(hashes, "sha256_file", lambda path: counted.append(path) or real(path))
    file = tmp_path / "file"
    file.write_bytes(b"some bytes")
    digest = hashes.remembered_sha256(file)
    assert digest == hashes.remembered_sha256(file) == real(file)
    assert len(counted) == 1
    file.write_bytes(b"other bytes")
    assert hashes.remembered_sha256(file) == real(file) != digest
    (tmp_path / "home" / "hashes" / "data.json").write_text("{dam")
    assert hashes.remembered_sha256(file) == real(file)


@pytest.fixture
def ranked(tmp_path: Path) -> Path:
    """Two rankings of images that lie beside the file: of 4 images with a tie, and of 2."""
    (tmp_path / "images").mkdir()
    for i in range(6):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(jpeg(i))
    names = [f"images/{i}.jpg" for i in range(6)]
    rows = [
        {"prompt": "a", "image_path": names[:4], "rank": [3, 1, 2, 2]},
        {"prompt": "b", "image_path": names[4:], "rank": [2, 1]},
    ]
    path = tmp_path / "test.json"
    path.write_text(json.dumps(rows))
    return path


def pairs(rows: Rows) -> list[tuple[str, int, int, float]]:
    """Prompt, numbers of the images and label of every pair."""
    number = {jpeg(i): i for i in range(6)}
    return [
        (rows.prompts[i].as_py(), *(number[image] for image in rows.images(i)), rows.labels[i])
        for i in range(len(rows))
    ]


def test_rankings_become_pairs(ranked: Path) -> None:
    """The order is 1, then 2 and 3 alike, then 0: the better image first."""
    made = {
        which: pairs(make_source({"name": "rankings", "path": str(ranked), "pairs": which}).open())
        for which in ("all", "best-worst", "adjacent")
    }
    last = ("b", 5, 4, 1.0)
    assert made["best-worst"] == [("a", 1, 0, 1.0), last]
    assert made["adjacent"] == [("a", 1, 2, 1.0), ("a", 2, 3, 0.5), ("a", 3, 0, 1.0), last]
    assert made["all"] == [
        ("a", 1, 2, 1.0), ("a", 1, 3, 1.0), ("a", 1, 0, 1.0), ("a", 2, 3, 0.5), ("a", 2, 0, 1.0),
        ("a", 3, 0, 1.0), last,
    ]  # fmt: skip
    highest = make_source(
        {"name": "rankings", "path": str(ranked), "pairs": "best-worst", "best": "highest"}
    )
    assert pairs(highest.open()) == [("a", 0, 1, 1.0), ("b", 4, 5, 1.0)]


def test_rankings_in_parquet_and_json_are_the_same_pairs(ranked: Path) -> None:
    rows = json.loads(ranked.read_text())
    for row in rows:
        row["image_path"] = [(ranked.parent / name).read_bytes() for name in row["image_path"]]
    pq.write_table(pa.Table.from_pylist(rows), ranked.with_suffix(".parquet"), row_group_size=1)
    other = make_source({"name": "rankings", "path": str(ranked.with_suffix(".parquet"))}).open()
    assert pairs(other) == pairs(make_source(str(ranked)).open())
    assert other.place(6) == "test.parquet row group 1 row 0 images 1 and 0"


def test_the_identity_of_rankings(ranked: Path, tmp_path: Path) -> None:
    """How pairs are made of them enters, and the bytes of the images; the place does not."""
    ids = {
        make_source({"name": "rankings", "path": str(ranked), **more}).open().sha256()
        for more in ({}, {"pairs": "adjacent"}, {"best": "highest"})
    }
    assert len(ids) == 3
    before = make_source(str(ranked)).open().sha256()
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "images").rename(moved / "images")
    ranked.rename(moved / "x.json")
    assert make_source(str(moved / "x.json")).open().sha256() == before
    (moved / "images" / "2.jpg").write_bytes(jpeg(9))
    assert make_source(str(moved / "x.json")).open().sha256() != before


def test_rankings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for row, message in (
        ({"prompt": "a", "image_path": ["x", "y"]}, "item 0: expected an object with .*rank"),
        ({"prompt": "a", "image_path": ["x", "y"], "rank": [1]}, "item 0: expected one rank"),
        ({"prompt": "a", "image_path": ["x"], "rank": ["best"]}, "expected one rank"),
    ):
        path.write_text(json.dumps([row]))
        with pytest.raises(UserError, match=message):
            make_source(str(path)).open()
    path.write_text("[")
    with pytest.raises(UserError, match="expected JSON"):
        make_source(str(path)).open()


def test_a_folder_of_files(tmp_path: Path) -> None:
    """The winner is image 0; a file that is not there is a bad pair."""
    (tmp_path / "w.jpg").write_bytes(jpeg(1))
    (tmp_path / "l.jpg").write_bytes(jpeg(2))
    lines = [
        {"prompt": "a", "winner": "w.jpg", "loser": "l.jpg"},
        {"prompt": "b", "winner": "gone.jpg", "loser": "l.jpg"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = make_source(str(path)).open()
    assert rows.images(0) == (jpeg(1), jpeg(2))
    assert rows.labels.tolist() == [1.0, 1.0]
    with pytest.raises(BadPair, match=r"no file .*gone\.jpg"):
        rows.images(1)
    before = rows.sha256()
    (tmp_path / "gone.jpg").write_bytes(jpeg(3))
    assert make_source(str(path)).open().sha256() != before


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "link/x.jpg", "a/../../secret"])
def test_names_must_not_lead_out(tmp_path: Path, name: str) -> None:
    """Names are data: neither .. nor an absolute path nor a link out of the folder is followed."""
    folder = tmp_path / "folder"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    path = folder / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "a", "winner": name, "loser": name}) + "\n")
    rows = make_source(str(path)).open()
    for look in (lambda: rows.images(0), rows.sha256):
        with pytest.raises(UserError, match="which leads out"):
            look()


def test_labels_are_floats(ranked: Path) -> None:
    """Whatever the source: select compares them with numbers."""
    assert make_source(str(ranked)).open().labels.dtype == np.float64


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pairs.jsonl", "folder"), ("ranked.json", "rankings"), ("pairs.parquet", "parquet"),
        ("data/**/*.parquet", "parquet"), ("owner/set.v2", "parquet"), ("folder", "parquet"),
    ],
)  # fmt: skip
def test_a_path_alone_is_of_the_source_that_claims_its_suffix(path: str, name: str) -> None:
    assert make_source(path) == make_source({"name": name, "path": path})


IMAGES = {"jpg_0": [jpeg(0), jpeg(2)], "jpg_1": [jpeg(1), jpeg(3)]}


def pick(path: Path, **columns: Any) -> Path:
    """Two pairs in the schema of Pick-a-Pic, with some columns other than usual."""
    plain = {"caption": ["a", "b"], **IMAGES, "label_0": [1.0, 0.0]}
    pq.write_table(pa.table(plain | columns), path)
    return path


@pytest.mark.parametrize(
    "labels",
    [[1, 0], [True, False], pa.array([1, 0], pa.int8()), pa.array([1, 0], pa.decimal128(3, 1))],
)
@pytest.mark.parametrize("judged", [[True, True], [1, 1], [1.0, 1.0]])
def test_numbers_and_truths_of_any_type_are_read(tmp_path: Path, labels: Any, judged: Any) -> None:
    """Beside shards of other types, too."""
    pick(tmp_path / "0.parquet", has_label=pa.array([True, False]))
    pick(tmp_path / "1.parquet", label_0=labels, has_label=judged)
    rows = make_source(str(tmp_path)).open()
    np.testing.assert_array_equal(rows.labels, [1, np.nan, 1, 0])


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"label_0": ["1", "0"]}, "x.parquet: expected numbers in column 'label_0', got string"),
        ({"label_0": ["left", ""]}, "x.parquet: expected numbers in column 'label_0', got string"),
        ({"label_1": ["0", "1"]}, "x.parquet: expected numbers in column 'label_1', got string"),
        ({"has_label": ["True", ""]}, "expected true or false in column 'has_label', got string"),
        ({"has_label": [1, 2]}, "row 1: expected true or false in column 'has_label', got 2"),
        ({"has_label": [1, float("nan")]}, "row 1: expected true or false .*, got nan"),
        ({"caption": [["a"], ["b"]]}, "expected text in column 'caption', got list"),
        ({"caption": [b"a", b"caf\xe9"]}, "expected text in column 'caption', got binary"),
        ({"caption": ["a", None]}, "row 1: expected text in column 'caption', got null"),
        ({"jpg_1": ["a.jpg", "b.jpg"]}, "the bytes of an encoded image in column 'jpg_1', got str"),
    ],
)
def test_columns_of_another_kind_are_refused_by_name(
    tmp_path: Path, columns: dict[str, Any], told: str
) -> None:
    source = make_source(str(pick(tmp_path / "x.parquet", **columns)))
    with pytest.raises(UserError, match=told) as caught:
        source.open()
    assert "x.parquet" in str(caught.value)


def test_all_that_is_wrong_with_files_is_told_at_once(tmp_path: Path) -> None:
    pick(tmp_path / "a.parquet", label_0=["1", "0"], caption=["a", None])
    pick(tmp_path / "b.parquet")
    pick(tmp_path / "c.parquet", caption=[1, 2])
    with pytest.raises(UserError) as caught:
        make_source(str(tmp_path)).open()
    assert str(caught.value).split("; ") == [
        "a.parquet row group 0 row 1: expected text in column 'caption', got null",
        f"{tmp_path}/a.parquet: expected numbers in column 'label_0', got string",
        f"{tmp_path}/c.parquet: expected text in column 'caption', got int64",
    ]


def test_damage_within_a_parquet_file_names_it(tmp_path: Path) -> None:
    """Wherever it is: it is either told, or what is read are the rows that were written."""
    whole = pick(tmp_path / "x.parquet").read_bytes()
    expected = make_source(str(tmp_path / "x.parquet")).open().images(0)
    rng = np.random.default_rng(0)
    for place in rng.integers(4, len(whole), size=60):
        data = bytearray(whole)
        data[place] ^= 0xFF
        (tmp_path / "x.parquet").write_bytes(data)
        try:
            rows = make_source(str(tmp_path / "x.parquet")).open()
            found = rows.images(0)
        except (UserError, BadPair) as error:
            assert "\n" not in str(error)
            continue
        assert [len(image) for image in found] == [len(image) for image in expected]


RANKS = "expected one rank for each of"


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([1, None], "got a NoneType"), ([1, True], "got a bool"), ([1, "2"], "got a str"),
        ([1], "got 1"), ([1, 2, 3], "got 3"), (None, "got null"), ("12", "got str"),
        ({"a": 1}, "got dict"),
    ],
)  # fmt: skip
def test_ranks_that_are_no_numbers_are_refused(tmp_path: Path, ranks: Any, told: str) -> None:
    rows = [
        {"prompt": "a", "image_path": ["x", "y"], "rank": [1, 2]},
        {"prompt": "a", "image_path": ["x", "y"], "rank": ranks},
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=rf"r\.json item 1: {RANKS} 2 images.*{told}"):
        make_source(str(tmp_path / "r.json")).open()


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([[1.0, float("nan")]], f"row 0: {RANKS} its images.*got nan"),
        ([[1.0, None]], f"row 0: {RANKS} its images.*got a NoneType"),
        ([None], f"row 0: {RANKS} its images.*got null"),
        ([[True, False]], r"expected lists of numbers in column 'rank', got list<\w+: bool>"),
        ([["1", "2"]], r"expected lists of numbers in column 'rank', got list<\w+: string>"),
        ([1], "expected lists of numbers in column 'rank', got int64"),
    ],
)
def test_ranks_in_parquet_that_are_no_numbers_are_refused(
    tmp_path: Path, ranks: list[Any], told: str
) -> None:
    images = pa.array([[jpeg(0), jpeg(1)]])
    kind = pa.list_(pa.float64()) if ranks == [None] else None
    table = pa.table({"prompt": ["a"], "image_path": images, "rank": pa.array(ranks, kind)})
    pq.write_table(table, tmp_path / "r.parquet")
    with pytest.raises(UserError, match=told):
        make_source({"name": "rankings", "path": str(tmp_path / "r.parquet")}).open()


def test_a_ranking_with_more_images_than_ranks_is_a_bad_pair(tmp_path: Path) -> None:
    images = pa.array([[jpeg(0), jpeg(1), jpeg(2)]])
    table = pa.table({"prompt": ["a"], "image_path": images, "rank": [[1, 2]]})
    pq.write_table(table, tmp_path / "r.parquet")
    rows = make_source({"name": "rankings", "path": str(tmp_path / "r.parquet")}).open()
    with pytest.raises(BadPair, match="expected 2 images, one for each rank, got 3"):
        rows.images(0)


@pytest.mark.parametrize(
    ("key", "value"), [("prompt", None), ("prompt", ["a"]), ("winner", 1), ("loser", None)]
)
def test_a_line_of_pairs_that_is_no_text_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    rows = [{"prompt": "a", "winner": "x", "loser": "y"}] * 2
    rows[1] = {**rows[1], key: value}
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=rf"p\.jsonl:2: expected .*{key}.* as text, got"):
        make_source(str(tmp_path / "p.jsonl")).open()


@pytest.mark.parametrize(
    ("names", "mend"),
    [
        (
            ("data/train-00000-of-00001-ab.parquet", "data/validation_unique-00000.parquet",
             "data/test-00000.parquet"),
            'got train (1), validation (1), test (1): choose one, as by files: '
            '"data/train-*.parquet"',
        ),
        (("train/0.parquet", "test/0.parquet"), 'files: "train/*.parquet"'),
        (("d/train/0.parquet", "d/val/0.parquet"), 'files: "d/train/*.parquet"'),
        (("train.parquet", "Test.parquet"), 'files: "train*.parquet"'),
        (("train/a/0.parquet", "train/b/0.parquet", "test/0.parquet"),
         'files: "train/**/*.parquet"'),
    ],
)  # fmt: skip
def test_several_splits_are_refused_with_the_setting_that_takes_one(
    tmp_path: Path, names: tuple[str, ...], mend: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pick(tmp_path / name)
    for source in (str(tmp_path), f"{tmp_path}/**/*.parquet"):
        with pytest.raises(UserError, match="expected the files of one split") as caught:
            make_source(source).open()
        told = str(caught.value)
        pattern = told.rpartition(': "')[2].strip('"')
        if source == str(tmp_path):
            assert told.endswith(mend)
            chosen = make_source({"name": "parquet", "path": source, "files": pattern})
        else:
            chosen = make_source(pattern)
        trained = sum("train" in name for name in names)
        assert len(chosen.open()) == 2 * trained


def test_rankings_of_several_splits_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table = pa.table({"prompt": ["a"], "image_path": [[jpeg(0), jpeg(1)]], "rank": [[1, 2]]})
        pq.write_table(table, tmp_path / f"{split}-0.parquet")
    with pytest.raises(UserError, match="expected the files of one split") as caught:
        make_source({"name": "rankings", "path": str(tmp_path)}).open()
    path = str(caught.value).rpartition('path: "')[2].strip('"')
    assert len(make_source({"name": "rankings", "path": path}).open()) == 1


def test_a_pipe_for_an_image_is_a_bad_pair(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.jpg")
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "winner": "w.jpg", "loser": "w.jpg"}')
    rows = make_source(str(tmp_path / "p.jsonl")).open()
    with pytest.raises(BadPair, match="expected a file, got a pipe"):
        rows.images(0)
    assert rows.sha256()
