"""``bench store du`` and ``clean``: what is whose, and that nothing goes that a result needs."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run
from bench.results.files import MANIFEST, PROTOCOL, read_manifest
from bench.stages.store import LOCK, Store
from trainers.files import canonical_json, sha256_text

COMMITTED = Path(__file__).parents[3] / "results" / "first-world"
IDS = {name: sha256_text(name) for name in ("encode", "one", "both", "nobody", "pictures")}
SIGNATURE = "oracle|rule|0.7*fit+0.3*craft|float64|4e0d2c2b0576"
OLD = 1_000_000_000


def artefact(store: Store, kind: str, name: str, size: int) -> Path:
    with store.lock(kind, IDS[name]) as folder:
        (folder / "file").write_bytes(b"x" * size)
        store.record(kind, IDS[name], {}, 1.0)
    return folder


def result(out: Path, name: str, stages: list[tuple[str, str]], digest: str = "f" * 64) -> None:
    """A result folder whose manifest names some stages."""
    said = read_manifest(COMMITTED).model_dump(mode="json")
    said["stages"] = [
        {"kind": kind, "label": stage, "id": IDS[stage], "state": "done", "digest": digest,
         "seconds": 1.0}
        for kind, stage in stages
    ]  # fmt: skip
    sealed = {"schema": 3, "sha256": sha256_text(canonical_json(said)), **said}
    (out / name).mkdir()
    (out / name / MANIFEST).write_text(json.dumps(sealed))
    shutil.copy(COMMITTED / PROTOCOL, out / name / PROTOCOL)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two results that share an artefact; an artefact, a pool of images and scores of nobody."""
    store = Store(tmp_path / "store")
    artefact(store, "encode", "encode", 1_000)
    artefact(store, "train", "one", 20_000)
    artefact(store, "train", "both", 30_000)
    artefact(store, "train", "nobody", 50_000)
    images = artefact(store, "images", "pictures", 7_000)
    for name in ("used", "unused"):
        (store.pool("images") / name).mkdir(parents=True)
    os.link(images / "file", store.pool("images") / "used" / "file")
    (store.pool("images") / "unused" / "file").write_bytes(b"x" * 9_000)
    store.pool("scores").mkdir()
    for signature in (SIGNATURE, "another"):
        path = store.pool("scores") / f"{sha256_text(signature)[:16]}.parquet"
        path.write_bytes(b"x" * 400)
        path.with_name(f".{path.name}.sha256").write_text("{}")
    (store.pool("train") / ("f" * 16) / "8").mkdir(parents=True)
    (store.pool("train") / ("a" * 16) / "8").mkdir(parents=True)
    (store.root / "encodings" / "0").mkdir(parents=True)
    result(tmp_path, "first", [("train", "one"), ("train", "both"), ("encode", "encode")])
    result(tmp_path, "second", [("train", "both"), ("images", "pictures")])
    for path in store.root.rglob("*"):
        os.utime(path, (OLD, OLD))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["store", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def left(out: Path) -> set[str]:
    root = out / "store"
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_space_is_told_by_result_and_each_file_counts_once(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "du", "--out", str(out))
    size = {
        Path(p["path"]).name: p["bytes"] for p in found["pieces"] if p["kind"] != "shared images"
    }
    pool = {Path(p["path"]).name: p["bytes"] for p in found["pieces"] if "images" in p["kind"]}
    one, both = size[IDS["one"][:16]], size[IDS["both"][:16]]
    assert one > 20_000 and both > 30_000
    by_name = {row["result"]: row for row in found["results"]}
    assert by_name["second"]["alone"] == pool[IDS["pictures"][:16]]
    assert by_name["second"]["bytes"] >= both + pool[IDS["pictures"][:16]]
    assert by_name["first"]["alone"] == one + size[IDS["encode"][:16]]
    assert by_name[None]["bytes"] == size[IDS["nobody"][:16]] + 9_000 + 400
    every = {(p.stat().st_ino, p.stat().st_size) for p in out.joinpath("store").rglob("*")
             if p.is_file() and not p.name.endswith(".sha256")}  # fmt: skip
    assert found["bytes"] == sum(bytes_ for _, bytes_ in every)
    assert run(["store", "du", "--out", str(out)]) == 0
    assert "(none)  " in capsys.readouterr().out


def test_what_nothing_refers_to_goes_and_nothing_else(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(out)
    would = told(capsys, "clean", "--out", str(out), "--dry-run")
    assert left(out) == before and would["dry_run"]
    gone = told(capsys, "clean", "--out", str(out))
    assert gone["pieces"] == would["pieces"] and gone["bytes"] == would["bytes"] > 59_000
    another = sha256_text("another")[:16]
    lost = before - left(out)
    assert {name for name in lost if name.count("/") == name.startswith("pool") + 1} == {
        f"train/{IDS['nobody'][:16]}", "pool/images/unused", f"pool/train/{'a' * 16}",
        f"pool/scores/{another}.parquet", f"pool/scores/.{another}.parquet.sha256",
    }  # fmt: skip
    assert told(capsys, "clean", "--out", str(out))["pieces"] == []


def test_what_a_result_needs_takes_force_and_what_two_need_takes_both(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(out)
    assert run(["store", "clean", "first", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "would go that first refers to" in error and error.count("\n") == 1
    assert left(out) == before
    told(capsys, "clean", "first", "--out", str(out), "--force")
    assert f"train/{IDS['one'][:16]}" not in left(out)
    assert f"train/{IDS['both'][:16]}" in left(out)
    told(capsys, "clean", "first", "second", "--out", str(out), "--force")
    assert not any(IDS[name][:16] in path for path in left(out) for name in IDS)
    assert (out / "first" / PROTOCOL).exists()


def test_what_has_changed_lately_may_be_of_an_experiment_that_runs(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = out / "store" / "train" / IDS["nobody"][:16]
    os.utime(folder / "file")
    assert str(folder) not in {
        p["path"] for p in told(capsys, "clean", "--out", str(out), "--dry-run")["pieces"]
    }
    told(capsys, "clean", "--out", str(out), "--hours", "0")
    assert not folder.exists()


def test_nothing_goes_while_another_process_is_at_work(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though it works on another piece: what it has made before may be of no result yet."""
    before, folder = left(out), out / "store" / "train" / IDS["both"][:16]
    with (folder / LOCK).open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert run(["store", "clean", "--out", str(out)]) == 1
    assert f"at work on {folder}: wait until it has ended" in capsys.readouterr().err
    assert left(out) == before
    lease = folder / ".lock.lease-of-another-machine"
    lease.write_text("process 1 on another")
    assert run(["store", "clean", "--out", str(out)]) == 1
    os.utime(lease, (OLD, OLD))
    assert run(["store", "clean", "--out", str(out)]) == 0


@pytest.mark.parametrize("command", ["du", "clean"])
def test_nothing_is_deleted_beside_a_result_that_says_not_what_it_needs(
    out: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left(out)
    for damage in ("{}", None):
        path = out / "first" / MANIFEST
        path.unlink() if damage is None else path.write_text(damage)
        assert run(["store", command, "--out", str(out)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    (out / "first" / PROTOCOL).rename(out / "first" / "plan.json")  # Of schema 1.
    assert run(["store", command, "--out", str(out)]) == 1
    assert left(out) == before


def test_no_store_and_no_such_result_are_one_line(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["store", "du", "--out", str(tmp_path / "none")]) == 1
    assert "holds no store: give the --out of a 'bench ablate'" in capsys.readouterr().err
    assert run(["store", "clean", "third", "--out", str(out)]) == 1
    assert "has no result 'third'" in capsys.readouterr().err
