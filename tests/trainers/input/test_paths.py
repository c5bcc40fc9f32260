"""Files that somebody names."""

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from trainers.errors import UserError
from trainers.input.paths import inside, is_regular, read_bytes, refuse_leaving, regular


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert regular(tmp_path / "a") == tmp_path / "a"
    assert is_regular(tmp_path / "a")
    assert read_bytes(tmp_path / "a") == b"x"


def test_what_is_no_file_is_refused_by_its_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, said in {
        "absent": "no file", ".": "a folder", "pipe": "a pipe", "loop": "symbolic links",
        "n" * 300: "too long", "nul\0": "null byte",
    }.items():  # fmt: skip
        assert not is_regular(tmp_path / name)
        with pytest.raises(UserError, match=said):
            read_bytes(tmp_path / name)
    with pytest.raises(UserError, match="a device"):
        read_bytes(Path("/dev/zero"))


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="git lfs pull"):
        read_bytes(tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    ["../a", "..", "/etc/passwd", "link", "below/../../a", "out/a", "loop", "nul\0", "n" * 300],
)
def test_names_that_lead_out_give_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "a").write_text("")
    (folder / "below").mkdir()
    (folder / "link").symlink_to("../a")
    (folder / "out").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    found = inside(folder, name)
    assert found is None or not is_regular(found)


@pytest.mark.parametrize("name", ["a", "below/a", "below/../a", "link", "absent"])
def test_names_that_stay_give_a_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_text("")
    (tmp_path / "link").symlink_to("a")
    assert inside(tmp_path, name) == tmp_path / name


def test_a_snapshot_may_link_to_its_blobs_and_to_nothing_else(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b/snapshots/0f"
    for folder in (snapshot, tmp_path / "datasets--a--b/blobs", tmp_path / "other/blobs"):
        folder.mkdir(parents=True)
        (folder / "1a").write_text("")
    (snapshot / "x.png").symlink_to("../../blobs/1a")
    (snapshot / "y.png").symlink_to("../../../other/blobs/1a")
    assert inside(snapshot, "x.png") == snapshot / "x.png"
    assert inside(snapshot, "y.png") is None


def test_a_link_may_lead_into_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder, blobs = tmp_path / "mine", tmp_path / "hub/datasets--a--b/blobs"
    folder.mkdir()
    blobs.mkdir(parents=True)
    (blobs / "1a").write_text("")
    (folder / "x.png").symlink_to(blobs / "1a")
    assert inside(folder, "x.png") == folder / "x.png"


def test_what_is_found_in_a_folder_must_be_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (tmp_path / "a.parquet").write_text("")
    (folder / "below/b.parquet").write_text("")
    (folder / "c.parquet").symlink_to("below/b.parquet")
    refuse_leaving(folder, folder.glob("**/*.parquet"))
    refuse_leaving(tmp_path / "a.parquet", [tmp_path / "a.parquet"])
    (folder / "d.parquet").symlink_to("../a.parquet")
    with pytest.raises(UserError, match=r"d\.parquet: expected a file of"):
        refuse_leaving(folder, folder.glob("**/*.parquet"))
