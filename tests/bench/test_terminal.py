"""Tables for people at a terminal and for programs behind a pipe: no name is ever cut."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.rewards import REWARDS
from bench.terminal import Column, print_table, print_text

Capture = pytest.CaptureFixture[str]
COLUMNS = (Column("arm"), Column("dz", rank=1), Column("p", rank=1), Column("verdict"))
ROWS = (("DPO+A+B - DPO+A", "-0.19", "0.0281", "hurts"), ("DPO - base", "", "<0.0001", "helps"))


@pytest.fixture
def at_width(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[..., list[str]]:
    """The lines of a table on a terminal of so many columns."""

    def lines(width: int, *table: Any) -> list[str]:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(*table)
        return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()

    return lines


def texts(line: str) -> list[str]:
    return [text.strip() for text in re.split("[│┃]", line)[1:-1]]


def test_in_a_pipe_a_row_is_a_line_with_gaps_between_its_columns(capsys: Capture) -> None:
    rows = [*ROWS, ("[red]two\n  lines[/red] :smile:", "x" * 300, "0.5", "hurts")]
    print_table(COLUMNS, rows, "a title")
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "a title"
    assert [re.split(" {2,}", line) for line in lines] == [
        ["arm", "dz", "p", "verdict"],
        ["DPO+A+B - DPO+A", "-0.19", "0.0281", "hurts"],
        ["DPO - base", "-", "<0.0001", "helps"],
        ["[red]two lines[/red] :smile:", "x" * 300, "0.5", "hurts"],
    ]


def test_a_terminal_that_is_wide_enough_shows_everything(
    at_width: Callable[..., list[str]],
) -> None:
    # Texts of 15, 5, 7 and 7 characters, 3 beside each, and the last edge.
    lines = at_width(15 + 5 + 7 + 7 + 4 * 3 + 1, COLUMNS, ROWS)
    assert texts(lines[1]) == ["arm", "dz", "p", "verdict"]
    assert texts(lines[3]) == list(ROWS[0])
    assert lines[-1].startswith("└")


def test_columns_of_least_interest_go_first_and_are_counted(
    at_width: Callable[..., list[str]],
) -> None:
    lines = at_width(46, COLUMNS, ROWS, "", (), "in table.md")
    assert texts(lines[3]) == ["DPO+A+B - DPO+A", "-0.19", "hurts"]
    assert lines[-1] == "1 column more in table.md"
    lines = at_width(36, COLUMNS, ROWS)
    assert texts(lines[3]) == ["DPO+A+B - DPO+A", "hurts"]
    assert lines[-1] == "2 columns more with --json"


def test_a_name_that_is_wider_than_the_terminal_is_whole(
    at_width: Callable[..., list[str]],
) -> None:
    lines = at_width(10, COLUMNS, ROWS)
    assert texts(lines[3]) == ["DPO+A+B - DPO+A"]
    assert lines[-1] == "3 columns more with --json"


def test_prose_is_broken_between_words_to_make_room(at_width: Callable[..., list[str]]) -> None:
    words = "one two three four five six seven eight nine ten"
    columns = (Column("name"), Column("what", prose=True), Column("n"))
    lines = at_width(48, columns, [("mini-imagereward", words, "1")])
    # 48 - 16 - 1 - 3 * 3 - 1 would leave 21: too narrow for prose beside the third column.
    assert lines[-1] == "1 column more with --json"
    body = [texts(line) for line in lines[3:-2]]
    assert [name for name, _ in body if name] == ["mini-imagereward"]
    assert " ".join(part for _, part in body) == words
    assert all(len(line) <= 48 for line in lines)


def test_a_text_is_one_line_in_a_pipe(capsys: Capture) -> None:
    text = "[b]words[/b] :smile: " * 20 + "end"
    print_text(text, "red")
    assert capsys.readouterr().out == f"{text}\n"


def on_a_terminal(command: list[str], columns: int) -> str:
    """What a command prints on a terminal of its own, without colours."""
    parent, child = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(command, stdout=child, stderr=child, env=env, close_fds=True) as process:
        os.close(child)
        parts = []
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # Linux says so when the other end is closed.
                break
            if not part:
                break
            parts.append(part)
    os.close(parent)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[\d;]*m", "", b"".join(parts).decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("width", [80, 120])
def test_results_on_a_real_terminal(result_folder: Callable[..., Path], width: int) -> None:
    folder = result_folder()
    shown = on_a_terminal([sys.executable, "-m", "bench", "table", str(folder)], width)
    lines = shown.splitlines()
    drawn = [line for line in lines if line.startswith(("│", "┃"))]
    assert drawn
    assert max(map(len, drawn)) <= width
    assert [texts(line)[0] for line in drawn] == [
        "arm", "base", "DPO", "DPO+A", *["comparison", "DPO - base", "DPO+A - DPO"] * 2
    ]  # fmt: skip
    assert "…" not in shown
    assert ("3 columns more in table.md" in lines) == (width == 80)
    assert "what helps is DPO - base: +" in " ".join(shown.split())
    assert f"In {folder}: table.md" in shown.replace("\n", "")
    assert "signature" not in shown and "truth|1" not in shown


def test_in_a_pipe_every_reward_is_a_line_that_grep_finds() -> None:
    env = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-m", "bench", "list", "rewards"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    title, header, *lines = done.stdout.splitlines()
    assert title == "rewards"
    assert re.split(" {2,}", header)[0] == "name"
    assert [line.split()[0] for line in lines] == REWARDS.names()
    assert len({len(re.split(" {2,}", line)) for line in (header, *lines)}) == 1


def test_notes_are_printed_when_they_are_asked_for(
    result_folder: Callable[..., Path], capsys: Capture
) -> None:
    from bench.cli import run

    folder = result_folder()
    assert run(["table", str(folder)]) == 0
    short = capsys.readouterr().out
    assert run(["table", str(folder), "--notes"]) == 0
    long = capsys.readouterr().out
    notes = [line for line in (folder / "table.md").read_text().splitlines() if line[:2] == "- "]
    assert len(notes) > 5
    assert not set(notes) & set(short.splitlines())
    assert set(notes) <= set(long.splitlines())
    assert "Read as: a test." in short
