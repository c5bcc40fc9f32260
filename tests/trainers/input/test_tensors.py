"""Files of tensors: what is read, and what is refused by which name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainers.errors import UserError
from trainers.input.tensors import (
    fit,
    not_finite,
    read_checkpoint,
    read_metadata,
    read_shapes,
    read_tensors,
    read_weights,
)

GOOD = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}
READERS: tuple[Callable[[Path], object], ...] = (
    read_tensors, read_shapes, read_metadata, read_checkpoint, read_weights,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(GOOD, tmp_path / "x.safetensors", {"from": "here"})
    return tmp_path / "x.safetensors"


def test_what_is_whole_is_read(path: Path) -> None:
    found = read_tensors(path)
    assert found.keys() == GOOD.keys()
    assert all(torch.equal(found[name], GOOD[name]) for name in GOOD)
    assert read_shapes(path) == {"a.weight": (2, 3), "b": (4,)}
    assert read_metadata(path) == {"from": "here"}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"", "fetch"),
        (b"{}", "fetch"),
        (b"<!DOCTYPE html><html>Not found</html>", "fetch"),
        (b"PK\x03\x04" + bytes(100), "fetch"),
        (bytes(7), "fetch"),
        (b"\xff" * 64, "fetch"),
    ],
)
def test_what_is_no_file_of_tensors_is_refused(
    tmp_path: Path, read: Callable[[Path], object], content: bytes, message: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}: expected .*{message}"):
        read(path)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """A folder, nothing, or a pipe that nobody writes to."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for name in (".", "none", "pipe"):
        with pytest.raises(UserError, match="file"):
            read(tmp_path / name)


def test_every_cut_is_seen(path: Path) -> None:
    """Wherever the file ends too early, or goes on too long."""
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut short or another"):
            read_shapes(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(UserError, match="cut short or another"):
        read_shapes(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 4999, 9999])
def test_a_value_that_is_not_finite_is_refused_by_name(
    tmp_path: Path, value: float, dtype: torch.dtype, place: int
) -> None:
    bad = torch.zeros(10_000, dtype=dtype)
    bad[place] = value
    save_file({"good": torch.ones(3), "layer.bad": bad}, tmp_path / "x.safetensors")
    torch.save({"good": torch.ones(3), "layer.bad": bad}, tmp_path / "x.pt")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pt"):
        with pytest.raises(UserError, match=rf"^{path}: .* infinite values in layer\.bad:"):
            read_weights(path)


def test_large_values_and_other_types_are_finite() -> None:
    """A sum that overflows says nothing yet, and integers and empty tensors are never in doubt."""
    tensors = {
        "large": torch.full((100,), 3e38),
        "both": torch.tensor([3e38, 3e38, -3e38]),
        "double": torch.tensor([1e300], dtype=torch.float64),
        "half": torch.full((100,), 65504.0, dtype=torch.float16),
        "ids": torch.arange(10),
        "none": torch.empty(0),
        "one": torch.tensor(1.0),
        "eight bits": torch.ones(4).to(torch.float8_e4m3fn),
    }
    assert not_finite(tensors.items()) == []
    opposed = torch.tensor([torch.inf, -torch.inf])
    assert not_finite({**tensors, "opposed": opposed}.items()) == ["opposed"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.ones(2)}, "without 1 tensors, such as 'b'"),
        ({"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}, "other 1 .* 'c'"),
        ({"a": torch.ones(2), "b": torch.ones(3, 1)}, r"'b' of \[3, 1\] instead of \[3\]"),
        ({"a": torch.ones(()), "b": torch.ones(3)}, r"'a' of \[\] instead of \[2\]"),
        ({}, "without 2 tensors, such as 'a'"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors: dict[str, Tensor], message: str) -> None:
    shapes = {"a": (2,), "b": (3,)}
    fit({"a": torch.zeros(2), "b": torch.zeros(3)}, shapes, Path("w"), Path("c"))
    with pytest.raises(UserError, match=rf"^w: expected exactly .* that c describes, .*{message}"):
        fit(tensors, shapes, Path("w"), Path("c"))


def test_a_checkpoint_may_hold_its_tensors_below_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": GOOD}, tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt").keys() == GOOD.keys()


class Evil:
    """Would make a file when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("planted",)


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, {"a": 1}, [torch.ones(1)], 3, None])
def test_a_checkpoint_of_anything_else_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match="the tensors of a head, read without running any code"):
        read_weights(tmp_path / "x.pt", "a head")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
