"""``bench store verify``."""

import os
from pathlib import Path

import pytest

from bench.cli import run
from bench.stages.store import Store


def test_a_store_is_verified_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, identity = Store(tmp_path / "store"), "0" * 64
    with store.lock("kind", identity) as folder:
        (folder / "file").write_text("text")
        store.record("kind", identity, {}, 1.0)
    assert run(["store", "verify", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'store'}: 1 artefacts are as recorded\n"
    path = folder / "file"
    stat = path.stat()
    path.write_text("test")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(["store", "verify", "--out", str(tmp_path)]) == 1
    assert f"{path} was changed or lost; delete that folder" in capsys.readouterr().err
