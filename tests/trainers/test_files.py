"""Whole-or-absent files, the one JSON text of a value, hashes, and exact checkpoints."""

import errno
import hashlib
import math
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from trainers import checkpoint
from trainers.errors import UserError
from trainers.files import (
    canonical_json,
    clear_parts,
    sha256_file,
    sha256_text,
    tree_hashes,
    write_atomically,
    write_text,
)


def failing(part: Path) -> None:
    """Write a part of a file, then fail as a full disk would."""
    part.write_text("half of the n")
    raise OSError("no space left on device")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """The old bytes stay and no temporary file is left beside them."""
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, failing)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    """As any other program's: a group that shares a folder can read, or write, what is in it."""
    code = (
        f"import os; os.umask({mask}); from pathlib import Path; "
        f"from trainers.files import write_text; write_text(Path({str(tmp_path / 'a')!r}), 'x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_failed_first_write_leaves_nothing(tmp_path: Path) -> None:
    """Absent rather than partial."""
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "deep" / "file.txt", failing)
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_interrupt_is_a_failed_write(tmp_path: Path) -> None:
    """Ctrl-C is no ``Exception``, but must clean up as well."""

    def interrupted(part: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.txt", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_whole(tmp_path: Path) -> None:
    """While the writer is at work, a reader sees the old content."""
    path = tmp_path / "file.txt"
    write_text(path, "old")
    seen = []

    def write(part: Path) -> None:
        part.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert (seen, path.read_text()) == (["old"], "new")


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    """The bytes, whatever the platform's defaults, so that hashes agree everywhere."""
    write_text(tmp_path / "a" / "b.txt", "ö\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"\xc3\xb6\n"


def test_canonical_json() -> None:
    """Sorted keys, no spaces; a float keeps its shortest form that reads back."""
    assert canonical_json({"b": [1, 0.1], "a": {"d": None, "c": True}}) == (
        '{"a":{"c":true,"d":null},"b":[1,0.1]}'
    )
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_canonical_json_refuses_what_json_has_no_word_for(value: float) -> None:
    """NaN is not JSON, and it equals nothing, not even itself."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": [value]})


def test_hashes(tmp_path: Path) -> None:
    """sha256 of "abc" as in FIPS 180-2, B.1."""
    golden = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_text("abc") == golden
    assert sha256_file(tmp_path / "abc") == golden


def test_tree_hashes(tmp_path: Path) -> None:
    """Files by POSIX path; hidden files and folders (locks, partial files) do not count."""
    for name in ("b", "a/c", "a/.part", ".cache/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    assert tree_hashes(tmp_path) == {
        "a/c": hashlib.sha256(b"a/c").hexdigest(),
        "b": hashlib.sha256(b"b").hexdigest(),
    }
    assert tree_hashes(tmp_path / "b") == tree_hashes(tmp_path / "nowhere") == {}


def test_tree_hashes_of_links(tmp_path: Path) -> None:
    """A linked file or folder counts as one that lies there; a link to nothing, as nothing."""
    for name in ("real/a/c", "store/vae/deep/d", "store/blob"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    folder, copy = tmp_path / "real", tmp_path / "copy"
    (folder / "vae").symlink_to(tmp_path / "store" / "vae")
    (folder / "b").symlink_to(tmp_path / "store" / "blob")
    (folder / ".hidden").symlink_to(tmp_path / "store")
    shutil.copytree(folder, copy)
    (folder / "nothing").symlink_to(tmp_path / "nowhere")
    assert list(tree_hashes(folder)) == ["a/c", "b", "vae/deep/d"]
    assert tree_hashes(folder) == tree_hashes(copy)
    before = tree_hashes(folder)
    (tmp_path / "store/vae/deep/d").write_bytes(b"another autoencoder")
    assert {n for n, h in tree_hashes(folder).items() if h != before[n]} == {"vae/deep/d"}
    (tmp_path / "again").symlink_to(folder)
    assert tree_hashes(tmp_path / "again") == tree_hashes(folder)


def test_tree_hashes_of_links_in_a_circle(tmp_path: Path) -> None:
    """A link back adds nothing: to the folder itself, one above it, or by way of two folders."""
    for name in ("model/a/x", "model/b/y", "other/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    model = tmp_path / "model"
    for link, to in {"a/self": "a", "a/up": ".", "a/b": "b", "b/a": "a"}.items():
        (model / link).symlink_to(model / to)
    (model / "o").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(model)
    assert list(tree_hashes(model)) == ["a/b/y", "a/x", "b/a/x", "b/y", "o/z"]


class Run:
    """A small network with AdamW on a fixed loss."""

    def __init__(self, fill: float) -> None:
        self.net = nn.Linear(3, 2)
        nn.init.constant_(self.net.weight, fill)
        nn.init.constant_(self.net.bias, fill)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.1)

    def advance(self, steps: int) -> None:
        """Make steps whose gradients differ from one another."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            (self.net.weight.square().sum() + self.net.bias.exp().sum()).backward()
            self.optimizer.step()

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        checkpoint.save(path, {"net": self.net}, self.optimizer, {"step": 2, "note": "ö"})


def test_a_loaded_checkpoint_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Weights, both moments and the step count of AdamW's bias correction all come back.

    Two steps, save, load into a run with other weights, one step: as three steps in a row.
    """
    path = tmp_path / "checkpoint.safetensors"
    whole, first, second = Run(0.5), Run(0.5), Run(-9.0)
    whole.advance(3)
    first.advance(2)
    first.save(path)
    state = checkpoint.load(path, {"net": second.net}, second.optimizer)
    assert state == {"step": 2, "note": "ö"} == checkpoint.read_state(path)
    second.advance(1)
    for a, b in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_is_safetensors(tmp_path: Path) -> None:
    """Readable without unpickling anything: the weights under the module's name."""
    run = Run(0.5)
    run.advance(1)
    run.save(tmp_path / "c")
    with safe_open(tmp_path / "c", framework="pt") as stream:
        assert torch.equal(stream.get_tensor("net/weight"), run.net.weight)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """Loading is strict: neither a missing nor a surplus tensor passes."""
    run = Run(0.5)
    run.save(tmp_path / "c")
    with pytest.raises(RuntimeError, match="Missing key"):
        checkpoint.load(tmp_path / "c", {"other": run.net}, run.optimizer)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        checkpoint.load(tmp_path / "c", {"net": nn.Linear(3, 2, bias=False)}, run.optimizer)


def test_a_failed_checkpoint_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest checkpoint is always whole."""
    run = Run(0.5)
    run.save(tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    run.advance(1)

    def full_disk(tensors: object, path: str, metadata: object) -> None:
        failing(Path(path))

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        run.save(tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == before


def full(part: Path) -> None:
    raise OSError(errno.ENOSPC, "")


def full_in_rust(part: Path) -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("write", [full, full_in_rust])
def test_a_full_disk_is_told_with_its_mend(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(UserError) as caught:
        write_atomically(tmp_path / "a", write)
    assert str(caught.value) == (
        f"{tmp_path}/a cannot be written (no space left on device): free space there, and run the "
        "same command again"
    )


@pytest.mark.parametrize("path", ["file/a", "folder"])
def test_what_is_in_the_way_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot be written \(.*\): .* and run the same command"):
        write_text(tmp_path / path, "text")


def test_parts_of_the_dead_are_cleared_and_of_the_living_are_not(tmp_path: Path) -> None:
    (tmp_path / ".a.0123abc_.part").write_text("left")
    (tmp_path / ".theirs.part").write_text("of another program")
    write_atomically(tmp_path / "b", lambda part: (clear_parts(tmp_path), part.write_text("b")))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".theirs.part", "b"]
    assert (tmp_path / "b").read_text() == "b"
