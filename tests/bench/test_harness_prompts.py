"""Prompt sets and their cards."""

import json
from pathlib import Path

import pytest
import yaml

from bench.mini.build.prompts import write_prompts
from bench.mini.world import parse
from bench.prompts import load_prompts, shipped
from trainers.errors import UserError
from trainers.files import sha256_file

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
        ("{", r"set\.jsonl:3: expected .*got '\{'"),
        ("", r"set\.jsonl:3: expected"),
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


@pytest.mark.parametrize("split", ["dev", "test"])
def test_shipped_sets_are_what_the_recipe_gives(tmp_path: Path, split: str) -> None:
    write_prompts(tmp_path, split)
    path = shipped()[f"mini-{split}"]
    made = tmp_path / path.name
    assert made.read_bytes() == path.read_bytes()
    cards = [yaml.safe_load(p.with_suffix(".yaml").read_text()) for p in (made, path)]
    for key in ("name", "licence", "split", "prompts", "sha256", "use"):
        assert cards[0][key] == cards[1][key], key
