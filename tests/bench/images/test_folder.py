"""The index of an image set is data, and is not trusted."""

import json
from pathlib import Path

import pytest

from bench.images.folder import INDEX, read_index
from trainers.errors import UserError
from trainers.files import sha256_file


def index(folder: Path, file: str, sha256: str) -> None:
    row = {"prompt": "a", "k": 0, "file": file, "sha256": sha256}
    (folder / INDEX).write_text(json.dumps(row) + "\n")


def test_a_file_that_is_as_recorded_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    index(tmp_path, "a.png", sha256_file(tmp_path / "a.png"))
    assert [row["file"] for row in read_index(tmp_path)] == ["a.png"]


@pytest.mark.parametrize("name", ["../secret.png", "sub/a.png", "absent.png", "", ".."])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.png", folder / "sub" / "a.png"):
        path.write_bytes(b"picture")
    index(folder, name, sha256_file(tmp_path / "secret.png"))
    with pytest.raises(UserError, match="expected the name of a file beside it"):
        read_index(folder)


def test_an_absolute_name_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"picture")
    (tmp_path / "images").mkdir()
    index(tmp_path / "images", str(outside), sha256_file(outside))
    with pytest.raises(UserError, match="expected the name of a file beside it"):
        read_index(tmp_path / "images")


def test_a_changed_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    index(tmp_path, "a.png", "0" * 64)
    with pytest.raises(UserError, match="is not the image that"):
        read_index(tmp_path)
