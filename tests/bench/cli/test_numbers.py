"""Numbers on the command line: each has two ends, so that neither NaN nor infinity passes."""

from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer

from bench.cli import app, run


def _commands(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    yield from (c.callback for c in group.registered_commands if c.callback is not None)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance)


def _numbers() -> Iterator[tuple[str, Any]]:
    for command in _commands(app):
        for name, hint in get_type_hints(command, include_extras=True).items():
            if get_origin(hint) is not Annotated:
                continue
            kind, info, *_ = get_args(hint)
            kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
            if {int, float} & {*kinds}:
                yield f"{command.__name__} --{name}", info


NUMBERS = dict(_numbers())


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_two_ends(name: str) -> None:
    assert NUMBERS[name].min is not None and NUMBERS[name].max is not None


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "1" * 400, "-1", "true", "x"])
@pytest.mark.parametrize(
    "option",
    [
        ("convert", "--beta"), ("convert", "--batch-size"), ("generate", "--guidance"),
        ("generate", "--eta"), ("score", "--memory"), ("ablate", "--workers"),
        ("train", "--seed"), ("power", "--target"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_no_number_is_refused(
    option: tuple[str, str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, name = option
    assert run([command, f"{name}={value}"]) == 1
    out, said = capsys.readouterr()
    assert out == "" and said.startswith("bench: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "-1", "0-", "-3", "3-1", "1,,2", "a", "1.5", "0x3", "1-2-3", "0-999999", "0-10000",
        "9223372036854775808", "9" * 5000, "0-9223372036854775807", "\u0663", "1_0",
        "0-5000,0-5000",
    ],
)  # fmt: skip
def test_seeds_are_refused_at_once(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ablate", f"--seeds={text}", "--plan"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bench: --seeds: expected ") and said.count("\n") == 1
    assert len(said) < 250


@pytest.mark.parametrize(
    "command",
    [
        ["ablate", "--quick", "--out", "file"], ["ablate", "--quick", "--out", "file/below"],
        ["ablate", "--quick", "--out", "taken"], ["train", "DPO", "--out", "file"],
        ["generate", "--prompts", "mini-dev", "--out", "file/below"], ["table", "file"],
        ["score", ".", "--out", "."], ["export", "run", "--out", "file"],
        ["export", "file", "--out", "x"],
        ["data", "label", "mini-pairs", "--reward", "oracle", "--out", "."],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_file_for_a_folder_or_the_other_way_round_is_refused_before_the_work(
    command: list[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "store").write_text("mine")
    assert run(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if not line.startswith("--quick")] == said[-1:]
    assert said[-1].startswith("bench: ")
    assert (tmp_path / "file").read_text() == "mine"
