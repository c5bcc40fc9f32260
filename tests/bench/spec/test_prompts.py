"""Prompt sets and their cards."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bench.mini.build.prompts import SETS, write_prompts
from bench.spec.prompts import count_prompts, external, load_prompts, shipped
from bench.world.scenes import all_scenes, parse, scenes
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_file, sha256_text

ROWS = [{"id": "a", "prompt": "a cat"}, {"id": "b", "prompt": "a dog"}]


def write(folder: Path, *lines: object) -> str:
    path = folder / "set.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts))
    return str(path)


def test_a_file_of_prompts_keeps_its_order(tmp_path: Path) -> None:
    source = write(tmp_path, *reversed(ROWS))
    found = load_prompts(source)
    assert found.items == (("b", "a dog"), ("a", "a cat"))
    assert found.name == "set"
    assert found.split == "unstated"
    assert found.sha256 == sha256_file(Path(source))


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    assert load_prompts(write(tmp_path, *ROWS), 1).items == (("a", "a cat"),)


def test_a_limit_above_the_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set\.jsonl holds 2 prompts, 3 were asked for"):
        load_prompts(write(tmp_path, *ROWS), 3)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "c", "prompt": "a cat"}, "prompt 'a cat' occurs more than once"),
        ({"id": "a", "prompt": "a bat"}, "id 'a' occurs more than once"),
        ("{", r"set\.jsonl:3: expected JSON"),
        ("[1]", r"set\.jsonl:3: expected"),
        ({"id": "c"}, r"set\.jsonl:3: expected .*\"prompt\""),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, expected: str) -> None:
    source = write(tmp_path, *ROWS, row)
    with pytest.raises(UserError, match=expected) as caught:
        load_prompts(source)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prompts"):
        load_prompts(write(tmp_path))


@pytest.mark.parametrize("sha256", ["0" * 64, None])
def test_a_card_of_another_file_is_refused(tmp_path: Path, sha256: str | None) -> None:
    source = write(tmp_path, *ROWS)
    card = {"name": "set", "split": "dev", **({"sha256": sha256} if sha256 else {})}
    Path(source).with_suffix(".yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(UserError, match=r"set\.jsonl is not the file its card describes"):
        load_prompts(source)


def test_a_card_gives_the_split(tmp_path: Path) -> None:
    source = write(tmp_path, *ROWS)
    card = {"split": "dev", "sha256": sha256_file(Path(source))}
    Path(source).with_suffix(".yaml").write_text(yaml.safe_dump(card))
    assert load_prompts(source).split == "dev"


def test_an_unknown_set_lists_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"no prompt set 'mini': .*mini-dev, mini-test"):
        load_prompts("mini")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_sets_match_their_cards(name: str) -> None:
    path = shipped()[name]
    card = yaml.safe_load(path.with_suffix(".yaml").read_text())
    loaded = load_prompts(name)  # Refuses a hash that differs.
    assert card["name"] == loaded.name == name
    assert card["prompts"] == len(loaded.items)
    assert card["split"] == loaded.split
    assert card["source"]
    assert card["licence"]


def test_dev_and_test_are_disjoint() -> None:
    dev, test = (dict(load_prompts(f"mini-{s}").items) for s in ("dev", "test"))
    assert not set(dev.values()) & set(test.values())
    assert not set(dev) & set(test)
    for prompt in (*dev.values(), *test.values()):
        parse(prompt)


@pytest.mark.parametrize("name", SETS)
def test_shipped_sets_are_what_the_recipe_gives(tmp_path: Path, name: str) -> None:
    write_prompts(tmp_path, name)
    path = shipped()[name]
    for suffix in (".jsonl", ".yaml"):
        made = (tmp_path / path.name).with_suffix(suffix)
        assert made.read_bytes() == path.with_suffix(suffix).read_bytes()


def test_harder_prompts_ask_for_the_same_scenes_in_words_that_no_training_caption_has() -> None:
    plain, hard = (dict(load_prompts(name).items) for name in ("mini-test", "mini-test-hard"))
    pairs = [*zip(plain.values(), hard.values(), strict=True)]
    assert all(parse(a) == parse(b) and sorted(a.split()) == sorted(b.split()) for a, b in pairs)
    assert not {scene.caption for scene in all_scenes()} & set(hard.values())
    assert len({b.split()[0] + b.split()[1] for _, b in pairs}) > 3


def test_prompts_of_the_training_split_are_its_captions() -> None:
    names = {scene.caption for scene in scenes("train")}
    assert set(dict(load_prompts("mini-train").items).values()) < names


def write_parquet(path: Path, captions: list[str | None], column: str = "caption") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Pick-a-Pic has images beside the captions, which nobody wants to read for their sake.
    rows = [{"jpg_0": b"not read", column: caption} for caption in captions]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_table(folder: Path, kind: str) -> Path:
    """Two prompts with a comma and quotation marks, as each kind of file has them."""
    texts = {
        "csv": 'id,prompt\n7,"a cat, asleep"\n8,"""OK"" on a wall"\n',
        "tsv": 'Prompt\tCategory\na cat, asleep\tAnimals\n"OK" on a wall\tSigns\n',
        "json": json.dumps(["a cat, asleep", '"OK" on a wall']),
    }
    if kind == "parquet":
        return write_parquet(folder / "set.parquet", ["a cat, asleep", '"OK" on a wall'])
    path = folder / f"set.{kind}"
    path.write_text(texts[kind])
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "parquet"])
def test_rows_of_a_table_are_numbered(tmp_path: Path, kind: str) -> None:
    path = write_table(tmp_path, kind)
    found = load_prompts(str(path))
    assert found.items == (("0", "a cat, asleep"), ("1", '"OK" on a wall'))
    assert (found.name, found.repeated, found.datasets) == ("set", 0, ())
    assert found.sha256 == sha256_file(path)


def test_a_card_beside_a_table_counts(tmp_path: Path) -> None:
    path = write_table(tmp_path, "json")
    card = {"split": "dev", "sha256": sha256_file(path), "datasets": ["other/dev"]}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(card))
    assert load_prompts(str(path)).datasets == ("other/dev",)
    path.write_text("[]")
    with pytest.raises(UserError, match="not the file its card describes"):
        load_prompts(str(path))


def test_shards_are_one_set_and_repeated_prompts_are_kept_once(tmp_path: Path) -> None:
    """Rows are counted over all shards, so that ids do not depend on what is left out."""
    shards = [["a cat", "a dog"], ["a cat", "an owl", "a dog"]]
    paths = [
        write_parquet(tmp_path / "x" / f"test-{number}.parquet", captions)
        for number, captions in enumerate(shards)
    ]
    write_parquet(tmp_path / "x" / "train-0.parquet", ["a fox"])
    found = load_prompts(str(tmp_path / "**" / "test-*.parquet"))
    assert found.items == (("0", "a cat"), ("1", "a dog"), ("3", "an owl"))
    assert found.repeated == 2
    assert found.sha256 == sha256_text(canonical_json([sha256_file(path) for path in paths]))
    assert load_prompts(str(tmp_path / "x" / "test-*.parquet"), 3).items == found.items
    with pytest.raises(UserError, match="holds 3 prompts, 4 were asked for"):
        load_prompts(str(tmp_path / "x" / "test-*.parquet"), 4)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "set.csv",
            "id,words\n1,a\n",
            r"or caption or text, got id, words",
        ),
        ("set.csv", "", r"expected a column .*, got none"),
        ("set.csv", 'prompt\n"a\n', r"expected a \.csv file, got unexpected end"),
        ("set.csv", "id,prompt\n1\n", r":2: expected 2 fields as in the first line, got 1"),
        ("set.json", '{"a": 1}', r"expected a list of prompts, got dict"),
        ("set.json", '["a", 2]', r"row 1: expected a prompt as text, got a int"),
        ("set.json", "[", r"expected JSON, got "),
        ("set.json", "[]", r"holds no prompts"),
        ("set.parquet", "no", r"expected a parquet file or a folder, got "),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=rf"set\.\w+.*{expected}"):
        load_prompts(str(path))


def test_a_row_without_a_caption_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet", ["a cat", None])
    with pytest.raises(UserError, match="row 1: expected text in column 'caption', got null"):
        load_prompts(str(path))


def test_known_sets_have_cards_that_say_what_marks_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Where none of them is.
    rows = {"hpdv2-benchmark": 3200, "partiprompts": 1632, "pickapic-v2-test": 500}
    assert {name: card["rows"] for name, card in external().items()} == rows
    for name, card in external().items():
        assert card["name"] == name
        assert all(card[key] for key in ("source", "licence", "split", "datasets"))
        assert count_prompts(name) == card["rows"]
        assert count_prompts(name, 7) == 7


def test_a_known_set_is_read_where_its_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the working directory, at any depth: copies of the data set differ in their folders."""
    monkeypatch.chdir(tmp_path)
    name = "pickapic-v2-test"
    with pytest.raises(UserError, match=r"is not part of this package, and there is no data/pick"):
        load_prompts(name)
    captions: list[str | None] = [f"prompt {n % 487}" for n in range(500)]
    path = Path("data/pickapic_v2/data/test_unique-00000-of-00001-ab.parquet")
    write_parquet(path, captions)
    found = load_prompts(name)
    assert (found.name, found.split, found.repeated) == (name, "test", 13)
    assert found.datasets == ("Pick-a-Pic/test",)
    assert len(found.items) == count_prompts(name) == 487
    moved = path.rename(tmp_path / "moved.parquet")
    assert load_prompts(name, 3, str(moved)).items == found.items[:3]
    write_parquet(moved, captions[:400])
    with pytest.raises(UserError, match=r"'pickapic-v2-test' has 500 rows, got 400 in 1 file"):
        load_prompts(name, files=str(moved))


def test_files_are_for_known_sets_only(tmp_path: Path) -> None:
    source = write(tmp_path, *ROWS)
    with pytest.raises(UserError, match="prompt_files is for hpdv2-benchmark, partiprompts, pick"):
        load_prompts("mini-dev", files=source)


def test_known_sets_with_a_hash_are_held_to_it(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("Prompt\n" + "".join(f"prompt {n}\n" for n in range(1632)))
    with pytest.raises(UserError, match=r"p\.tsv is not the file its card describes"):
        load_prompts("partiprompts", files=str(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.txt", "a cat\na dog\na cat\n"),
        ("set.jsonl", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n{"prompt": "a cat"}\n'),
        ("set.json", '[{"text": "a cat"}, {"text": "a dog"}, {"text": "a cat"}]'),
    ],
)
def test_prompts_without_ids_are_numbered(tmp_path: Path, name: str, text: str) -> None:
    """As those of any table; what repeats is left out and counted."""
    (tmp_path / name).write_text(text)
    found = load_prompts(str(tmp_path / name))
    assert found.items == (("0", "a cat"), ("1", "a dog"))
    assert found.repeated == 1


TEXTS = ("a cat, asleep", "a\u2028red\x85circle")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("set.txt", TEXTS),
        ("set.csv", ("prompt", *(f'"{text}"' for text in TEXTS))),
        ("set.tsv", ("prompt", *TEXTS)),
        ("set.jsonl", [json.dumps({"prompt": text}, ensure_ascii=False) for text in TEXTS]),
    ],
)
def test_a_byte_order_mark_and_ends_of_lines_are_no_part_of_a_prompt(
    tmp_path: Path, name: str, lines: list[str], end: str, mark: bytes
) -> None:
    (tmp_path / name).write_bytes(mark + "".join(f"{line}{end}" for line in lines).encode())
    assert load_prompts(str(tmp_path / name)).items == (("0", TEXTS[0]), ("1", TEXTS[1]))


@pytest.mark.parametrize("name", ["set.txt", "set.csv", "set.tsv", "set.json", "set.jsonl"])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("prompt\ncaf\xe9".encode("latin-1"), "expected text in UTF-8, got byte 0xe9 on line 2"),
        ("prompt\ncafe".encode("utf-16"), "expected UTF-8, got UTF-16"),
        (b"prompt\na\0b", "got a NUL on line 2"),
    ],
)
def test_other_encodings_are_refused(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: .*{told}"):
        load_prompts(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "set.csv",
            "prompt\na red circle, on a sky\n",
            ":2: expected 1 fields .*, got 2: quote a text",
        ),
        ("set.csv", "id,prompt\n1,a\n\n2,b,\n", ":4: expected 2 fields .*, got 3"),
        ("set.csv", 'id,prompt\n1,""\n', ":2: expected a prompt, got an empty one"),
        ("set.csv", 'id,prompt\n1,"a"b\n', r"expected a \.csv file, got .* on line 2"),
        ("set.tsv", "id\tprompt\n1\ta\tb\n", ":2: expected 2 fields .*, got 3"),
        ("set.txt", "a\n\nb\n", ":2: expected a prompt, got an empty one"),
        ("set.json", '["a", null]', "row 1: expected a prompt as text, got nothing"),
        ("set.json", '[{"prompt": "a", "prompt": "b"}]', "the key 'prompt' twice"),
        ("set.jsonl", '{"prompt": NaN}', ":1: expected JSON, got NaN"),
        ("set.jsonl", '{"id": null, "prompt": "a"}', ":1: expected an id as text, got nothing"),
        ("set.jsonl", '{"id": true, "prompt": "a"}', ":1: expected an id as text, got a bool"),
        ("set.jsonl", '{"id": 1, "prompt": "\\ud83d"}', ":1: expected a prompt, got half of a"),
    ],
)
def test_what_could_be_misread_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}.*{told}") as caught:
        load_prompts(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_parquet_whose_text_is_no_utf8_is_refused(tmp_path: Path) -> None:
    column = pa.array([b"fine", b"caf\xe9"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": column}), tmp_path / "set.parquet")
    with pytest.raises(UserError, match="row 1: expected text in UTF-8 in column 'prompt', got"):
        load_prompts(str(tmp_path / "set.parquet"))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,note,prompt\na cat,x,a dog\n")
    with pytest.raises(UserError, match="prompt more than once"):
        load_prompts(str(tmp_path / "p.csv"))
