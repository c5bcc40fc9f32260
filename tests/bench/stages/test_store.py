"""The store: what counts as done, and how damage is told."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.spec.launch import Work
from bench.spec.model import Cost
from bench.stages import store as stores
from bench.stages.base import Report, Stage
from bench.stages.store import STATUS, VERIFIED, Status, Store
from trainers.errors import UserError
from trainers.sealed import SEALS, Seals, write_sealed


@dataclass(frozen=True)
class Source(Stage):
    """Writes a text that its identity does not know."""

    kind: ClassVar[str] = "source"
    work: ClassVar[Work] = "score"
    order: ClassVar[int] = 0
    text: str

    def key(self) -> dict[str, Any]:
        return {"label": self.label}

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def units(self) -> int:
        return 1

    def expected_seconds(self, cost: Cost) -> float:
        return 0.0

    def run(self, folder: Path, store: Store, report: Report) -> None:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "text").write_text(self.text)
        report(1)


@dataclass(frozen=True)
class Copy(Stage):
    """Copies a source in two parts, and fails after the first if it is told to."""

    kind: ClassVar[str] = "copy"
    order: ClassVar[int] = 1
    resumes: ClassVar[bool] = True
    source: Source
    fail: bool = False

    def key(self) -> dict[str, Any]:
        return {}

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def units(self) -> int:
        return 2

    def expected_seconds(self, cost: Cost) -> float:
        return 0.0

    @property
    def needs(self) -> tuple[Stage, ...]:
        return (self.source,)

    def run(self, folder: Path, store: Store, report: Report) -> None:
        text = (self.source.output(store) / "deep" / "text").read_text()
        first = folder / "first"
        if not first.exists():  # An interrupted run is taken up.
            first.write_text(text)
            report(1)
        if self.fail:
            raise RuntimeError("half-way")
        (folder / "second").write_text(text)
        report(2)


def ignore(_: int) -> None:
    """A report nobody reads."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def execute(stage: Stage, store: Store, report: Report = ignore) -> Status:
    """Execute a stage as a command of its own would."""
    return stage.execute(Store(store.root), report)


def done(stage: Stage, store: Store) -> Status | None:
    """Look at a stage as a command of its own would."""
    return stage.done(Store(store.root))


def test_a_stage_is_done_only_after_its_record(store: Store) -> None:
    stage = Source("s", "text")
    assert done(stage, store) is None
    assert not store.root.exists()
    with store.lock(stage.kind, stage.id) as folder:
        stage.run(folder, store, ignore)
    assert done(stage, store) is None  # All the files are there, but there is no record of them.
    made = execute(stage, store)
    assert done(stage, store) == made
    assert list(made.outputs) == ["deep/text"]


def test_a_done_stage_is_not_run_again(store: Store) -> None:
    execute(Source("s", "one"), store)
    reports: list[int] = []
    execute(Source("s", "two"), store, reports.append)
    assert reports == []
    assert (Source("s", "").output(store) / "deep" / "text").read_text() == "one"


def change(folder: Path) -> Path:
    (folder / "deep" / "text").write_text("other")
    return folder / "deep" / "text"


def lose(folder: Path) -> Path:
    (folder / "deep" / "text").unlink()
    return folder / "deep" / "text"


def add(folder: Path) -> Path:
    (folder / "new").write_text("")
    return folder / "new"


@pytest.mark.parametrize("damage", [change, lose, add])
def test_damage_is_told_with_its_mend(store: Store, damage: Callable[[Path], Path]) -> None:
    stage = Source("s", "text")
    execute(stage, store)
    folder = stage.output(store)
    path = damage(folder)
    with pytest.raises(UserError) as caught:
        done(stage, store)
    message = str(caught.value)
    assert message.startswith(f"the store is damaged: {path} was changed or lost")
    assert f"rm -r {folder})" in message
    assert "\n" not in message


ODD = '{"id": "x", "inputs": 3, "outputs": [], "seconds": 1}'


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"id": "x"}', ODD])
def test_an_unreadable_record_is_told_with_its_mend(store: Store, text: str) -> None:
    stage = Source("s", "text")
    execute(stage, store)
    (stage.output(store) / STATUS).write_text(text)
    with pytest.raises(UserError, match=r"status\.json cannot be read; delete that folder \(rm -r"):
        done(stage, store)


def test_a_changed_bit_of_a_record_is_told_wherever_it_is(store: Store) -> None:
    source = Source("s", "text")
    execute(source, store)
    stage = Copy("c", source)
    execute(stage, store)
    path = stage.output(store) / STATUS
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError, match=f"{path} cannot be read; delete that folder"):
            done(stage, store)


@pytest.mark.parametrize("name", [STATUS, VERIFIED])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_stops_nobody(
    store: Store, name: str, make: Callable[[Path], None]
) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    path = settle(stage, store) / name
    path.unlink(missing_ok=True)
    make(path)
    if name == VERIFIED:
        assert done(stage, store) == made
    else:
        with pytest.raises(UserError, match="cannot be read; delete that folder"):
            done(stage, store)


def test_a_record_of_before_it_had_a_sha256_counts(store: Store) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    path = stage.output(store) / STATUS
    record = json.loads(path.read_text())
    del record["sha256"]
    path.write_text(json.dumps(record))
    assert done(stage, store) == made


def test_only_a_stage_that_takes_up_finds_what_was_left(store: Store) -> None:
    """What another had left there is no output."""
    stage = Source("s", "text")
    with store.lock(stage.kind, stage.id) as folder:
        store.claim(stage.kind, stage.id, {})
        (folder / "left").write_text("by an attempt")
    assert list(execute(stage, store).outputs) == ["deep/text"]


def test_pools_are_verified(store: Store) -> None:
    one, two = store.pool("kind") / "a" / "one", store.pool("kind") / "b" / "two"
    write_sealed(one, lambda part: part.write_text("1"))
    Seals(two.with_name(SEALS)).write(two, lambda part: part.write_text("2"))
    (two.parent / "other").write_text("not kept")
    assert store.verify_pools() == 2
    for path in (one, two):
        before = path.read_bytes()
        path.write_text("3")
        with pytest.raises(UserError, match=rf"{path} is not what was written .* \(rm {path}\)"):
            store.verify_pools()
        path.write_bytes(before)


def test_the_record_of_another_stage_is_refused(store: Store) -> None:
    first, second = Source("s", "text"), Source("t", "text")
    execute(first, store)
    first.output(store).rename(second.output(store))
    with pytest.raises(UserError, match=f"belongs to {first.id[:16]}; delete that folder"):
        done(second, store)
    assert done(first, store) is None


def test_hidden_files_do_not_count(store: Store) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    (stage.output(store) / ".text.x.part").write_text("left by a crash")
    assert done(stage, store) == made


def test_an_interrupted_stage_is_not_done_and_is_taken_up(store: Store) -> None:
    source = Source("s", "text")
    execute(source, store)
    with pytest.raises(RuntimeError, match="half-way"):
        execute(Copy("c", source, fail=True), store)
    stage = Copy("c", source)
    assert (stage.output(store) / "first").exists()
    assert done(stage, store) is None
    reports: list[int] = []
    execute(stage, store, reports.append)
    assert reports == [2]


def remake(store: Store, text: str) -> Source:
    """Make the source again, with another outcome or with the same."""
    source = Source("s", text)
    shutil.rmtree(source.output(store))
    execute(source, store)
    return source


def test_a_changed_source_makes_a_stage_not_done(store: Store) -> None:
    source = Source("s", "old")
    execute(source, store)
    stage = Copy("c", source)
    made = execute(stage, store)
    remake(store, "new")
    assert done(stage, store) is None
    again = execute(stage, store)
    assert again.digest != made.digest
    assert done(stage, store) == again
    for name in ("first", "second"):
        assert (stage.output(store) / name).read_text() == "new"


def test_what_a_changed_source_had_left_unfinished_is_not_taken_up(store: Store) -> None:
    source = Source("s", "old")
    execute(source, store)
    with pytest.raises(RuntimeError):
        execute(Copy("c", source, fail=True), store)
    remake(store, "new")
    stage = Copy("c", source)
    execute(stage, store)
    assert (stage.output(store) / "first").read_text() == "new"


def test_a_source_made_again_alike_changes_nothing(store: Store) -> None:
    source = Source("s", "text")
    execute(source, store)
    made = execute(Copy("c", source), store)
    remake(store, "text")
    assert done(Copy("c", source), store) == made


def test_a_source_that_was_cleared_away_is_not_missed(store: Store) -> None:
    source = Source("s", "text")
    execute(source, store)
    made = execute(Copy("c", source), store)
    shutil.rmtree(source.output(store))
    assert done(Copy("c", source), store) == made


def test_a_stage_that_is_made_again_is_looked_at_again(store: Store) -> None:
    source = Source("s", "old")
    execute(source, store)
    stage = Copy("c", source)
    execute(stage, store)
    remake(store, "new")
    assert stage.done(store) is None  # The store now remembers the old record,
    made = stage.execute(store, ignore)
    assert stage.done(store) == made  # but no longer.


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed, in order."""
    names: list[str] = []
    real = stores.sha256_file

    def spy(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(stores, "sha256_file", spy)
    return names


LONG_AGO = 1_600_000_000 * 10**9


def settle(stage: Stage, store: Store) -> Path:
    """Date a stage's files to long ago: these were written just now, and could change unseen."""
    folder = stage.output(store)
    for path in folder.rglob("*"):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return folder


def test_a_file_that_was_found_whole_is_not_hashed_again(store: Store, read: list[str]) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    settle(stage, store)
    read.clear()
    assert done(stage, store) == made
    assert sorted(read) == [STATUS, "text"]
    read.clear()
    assert done(stage, store) == made
    assert read == []


def test_only_what_differs_is_hashed_again(store: Store, read: list[str]) -> None:
    source = Source("s", "text")
    execute(source, store)
    stage = Copy("c", source)
    made = execute(stage, store)
    folder = settle(stage, store)
    settle(source, store)
    assert done(stage, store) == made
    read.clear()
    (folder / "second").touch()  # The same bytes at another time.
    assert done(stage, store) == made
    assert read == ["second"]


@pytest.mark.parametrize("text", ["test", "texts"])
def test_damage_to_what_was_found_whole_is_told(store: Store, text: str) -> None:
    """Of the same size, or at the same time: one that differs is enough."""
    stage = Source("s", "text")
    execute(stage, store)
    folder = settle(stage, store)
    assert done(stage, store) is not None
    path = folder / "deep" / "text"
    path.write_text(text)
    if len(text) != 4:
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    for _ in range(2):
        with pytest.raises(UserError, match=f"{path} was changed or lost"):
            done(stage, store)


def test_a_file_that_may_still_change_in_the_same_instant_is_not_trusted(
    store: Store, read: list[str]
) -> None:
    """Its time is not before that of the reading: here, it lies in the future."""
    stage = Source("s", "text")
    execute(stage, store)
    path = settle(stage, store) / "deep" / "text"
    later = LONG_AGO * 2
    os.utime(path, ns=(later, later))
    assert done(stage, store) is not None
    read.clear()
    assert done(stage, store) is not None
    assert read == ["text"]
    path.write_text("test")
    os.utime(path, ns=(later, later))
    with pytest.raises(UserError, match="was changed or lost"):
        done(stage, store)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"text": 3}'])
def test_a_damaged_memory_is_no_memory(store: Store, text: str) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    (settle(stage, store) / VERIFIED).write_text(text)
    assert done(stage, store) == made


def test_a_memory_that_is_wrong_tells_no_damage(store: Store) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    memory = settle(stage, store) / VERIFIED
    assert done(stage, store) == made
    memory.write_text(memory.read_text().replace(made.outputs["deep/text"], "0" * 64))
    assert done(stage, store) == made


def test_a_store_that_can_only_be_read_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Source("s", "text")
    made = execute(stage, store)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert done(stage, store) == made
    assert not (stage.output(store) / VERIFIED).exists()


def test_all_of_a_store_can_be_verified(store: Store, read: list[str]) -> None:
    """Whatever is remembered: here, a change that nothing but the bytes can tell."""
    source = Source("s", "text")
    execute(source, store)
    execute(Copy("c", source), store)
    folder = settle(source, store)
    assert done(source, store) is not None
    path = folder / "deep" / "text"
    assert Store(store.root).verify() == 2
    path.write_text("test")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert done(source, store) is not None
    with pytest.raises(UserError, match=f"{path} was changed or lost"):
        Store(store.root).verify()


def test_another_process_looks_for_itself(store: Store) -> None:
    source = Source("s", "old")
    execute(source, store)
    first = source.done(store)
    copy: Store = pickle.loads(pickle.dumps(store))
    remake(store, "new")
    assert source.done(store) == first
    assert copy.root == store.root
    assert source.done(copy) != first


HOLDER = """
import sys
from pathlib import Path
from bench.stages.store import Store
print("trying", flush=True)
with Store(Path(sys.argv[1])).lock("kind", "0123456789abcdef"):
    print("inside", flush=True)
"""


def test_a_lock_excludes_another_process(store: Store) -> None:
    with store.lock("kind", "0123456789abcdef"):
        other = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(store.root)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "trying\n"
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(timeout=0.5)
        except BaseException:
            other.kill()
            raise
    output, _ = other.communicate(timeout=60)
    assert output == "inside\n"
    assert other.returncode == 0
