"""Seals: a file counts only as it was written, whenever its writer was killed."""

import os
from pathlib import Path

import pytest

from trainers import sealed
from trainers.files import sha256_file
from trainers.sealed import Seals, copy, drop, move, open_line, seal_line, take, write_sealed


def write(path: Path, text: str) -> None:
    write_sealed(path, lambda part: part.write_text(text))


def test_a_file_is_taken_as_it_was_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "file"
    assert not take(path)
    write(path, "one")
    assert take(path)
    write(path, "two")
    assert take(path)
    path.write_text("one")  # It was that, once.
    assert take(path)
    assert capfd.readouterr().err == ""
    path.write_text("three")
    assert not take(path)
    assert list(path.parent.iterdir()) == []
    told = capfd.readouterr().err
    assert told == f"{path} is not what was written there (its sha256 differs): it is made again\n"


def test_seals_are_lines_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "text")
    assert (tmp_path / ".file.sha256").read_text() == f"{sha256_file(path)}  file\n"


def test_a_file_of_another_name_is_not_taken(tmp_path: Path) -> None:
    for name in "ab":
        Seals(tmp_path / "seals").write(tmp_path / name, lambda part: part.write_text(part.name))
    (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes())
    seals = Seals(tmp_path / "seals")
    assert seals.sha256(tmp_path / "a") is None
    assert seals.sha256(tmp_path / "b") == sha256_file(tmp_path / "b")


def test_a_kill_at_any_moment_leaves_a_file_with_its_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write(path, "old")
    for name in ("fsync", "fstat"):
        with monkeypatch.context() as patch:
            patch.setattr(sealed.os, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                write(path, "new")
        assert take(path)


def test_a_seal_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "old")
    seals = tmp_path / ".file.sha256"
    seals.write_bytes(seals.read_bytes() + b"0123")
    write(path, "new")
    assert take(path)


def test_a_pipe_in_the_place_of_seals_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".file.sha256")
    assert not take(tmp_path / "file")
    os.mkfifo(tmp_path / ".file.sha256")
    write(tmp_path / "file", "text")
    assert take(tmp_path / "file")


def test_copies_and_moves_are_sealed(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name / "file" for name in ("one", "two", "three"))
    write(one, "text")
    copy(one, two)
    move(two, three)
    assert take(one) and not take(two) and take(three)
    drop(three)
    assert list(three.parent.iterdir()) == []


def test_sealed_lines() -> None:
    line = seal_line("a text")
    assert open_line(line) == "a text"
    for place in range(len(line) - 1):
        changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        assert open_line(changed) is None
