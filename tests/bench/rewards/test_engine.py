"""Scores of images by several rewards: what is kept, what is computed, what stops whom."""

import csv
import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pyarrow import csv as arrow_csv

import bench.rewards.engine
from bench.images.folder import image_name, write_index
from bench.images.read import Item, read_items
from bench.rewards.base import Card, Reward, Scores
from bench.rewards.engine import CHUNK, SCHEMA, describe, make_reward, run, score_items
from bench.rewards.kit.shared import Shared
from bench.spec.model import Scoring
from trainers.errors import UserError
from trainers.files import sha256_file, write_atomically


def card(name: str, **changes: Any) -> Card:
    return Card(
        name=name, scale="0-255", range=(0, 255), weights=(), preprocessing="none", text=None,
        trained_on=(), licence="none", origin="rule", **changes,
    )  # fmt: skip


class Red(Reward):
    """The red channel of the first pixel; none at 13, infinite at 14."""

    card = card("red")
    calls: list[int]

    def load(self) -> None:
        """Nothing to read."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        assert len(images) == len(prompts)
        self.calls = [*getattr(self, "calls", []), len(images)]
        red = [float(np.asarray(image)[0, 0, 0]) for image in images]
        odd = {13.0: np.nan, 14.0: np.inf}
        return np.array([odd.get(value, value) for value in red], np.float32)


class Crimson(Red):
    """The same under another name."""

    card = card("crimson")


class Failing(Red):
    """Fails at the picture whose red is 33."""

    card = card("failing")
    error: BaseException = ValueError("no such pixel")

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        scores = super().score(images, prompts)
        if 33 in scores:
            raise self.error
        return scores


COUNT = CHUNK + 3
ODD = ("", "two\nlines", 'quotes " and, commas', "NA", "null", " spaces ", "1.5")
"""Prompts that a csv file could take for something else."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image set: the red of image ``n`` is ``n``."""
    rows = []
    for n in range(COUNT):
        path = tmp_path / image_name(f"p{n}", 0)
        Image.new("RGB", (4, 4), (n, 0, 0)).save(path)
        row = {"prompt": f"p{n}", "k": 0, "file": path.name, "sha256": sha256_file(path)}
        rows.append(row)
    write_index(tmp_path, rows)
    return tmp_path


@pytest.fixture
def items(folder: Path) -> list[Item]:
    return read_items(folder)


def column(path: Path, reward: str, name: str = "score") -> list[Any]:
    table = pq.read_table(path)
    return [row[name] for row in table.to_pylist() if row["reward"] == reward]


def test_rows_keep_the_order_of_items_and_what_is_not_finite_is_null(
    items: list[Item], tmp_path: Path
) -> None:
    path, counts = tmp_path / "s.parquet", []
    backwards = items[::-1]
    reward = Red()
    job = score_items(backwards, {"red": reward}, path, None, lambda *seen: counts.append(seen))
    expected = [None if n in (13, 14) else float(n) for n in reversed(range(COUNT))]
    assert column(path, "red") == expected == job.of("red", backwards)
    assert column(path, "red", "prompt") == [item.prompt for item in backwards]
    assert column(path, "red", "image_sha256") == [item.sha256 for item in backwards]
    assert set(column(path, "red", "signature")) == {reward.signature}
    assert counts == [("red", CHUNK), ("red", COUNT)]
    assert not job.failed


def test_only_what_is_missing_is_computed(items: list[Item], tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    score_items(items[:CHUNK], {"red": Red()}, path)
    again = Red()
    score_items(items, {"red": again}, path)
    # The two that were not finite are tried again, with the three new ones.
    assert again.calls == [2, 3]


def test_rows_of_other_images_and_rewards_stay(items: list[Item], tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    score_items(items[:4], {"red": Red()}, path)
    score_items(items[2:6], {"crimson": Crimson()}, path)
    assert column(path, "red") == [0, 1, 2, 3]
    score_items(items[3:5], {"red": Red()}, path)
    assert sorted(column(path, "red")) == [0, 1, 2, 3, 4]


def test_another_signature_is_another_column(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.parquet"
    score_items(items[:3], {"red": Red()}, path)
    monkeypatch.setattr(Red, "card", card("red", version=2))
    newer = Red()
    score_items(items[:3], {"red": newer}, path)
    assert newer.calls == [3]
    assert len(set(column(path, "red", "signature"))) == 2


def test_an_image_that_a_reward_fails_at_is_missing_alone(
    items: list[Item], tmp_path: Path
) -> None:
    path, failing, red = tmp_path / "s.parquet", Failing(), Red()
    job = score_items(items, {"failing": failing, "red": red}, path)
    assert not job.failed
    assert job.missing() == [f"{items[33].name}: failing: ValueError: no such pixel"]
    assert column(path, "failing")[:13] == list(range(13))
    assert column(path, "failing")[CHUNK:] == [32, None, 34]
    assert column(path, "red")[CHUNK:] == [32, 33, 34]
    # The chunk; the first of it; the two others, and each of them.
    assert failing.calls == [CHUNK, 3, 1, 2, 1, 1]


class Broken(Red):
    card = card("broken")

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        raise ValueError("no reward at all")


class Short(Red):
    card = card("short")

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        return np.zeros(len(images) + 1, np.float32)


@pytest.mark.parametrize(
    ("reward", "told"),
    [(Broken(), "ValueError: no reward at all"), (Short(), "a score for each of 32 images, got")],
)
def test_a_reward_that_fails_at_all_images_stops_alone(
    items: list[Item], tmp_path: Path, reward: Reward, told: str
) -> None:
    path = tmp_path / "s.parquet"
    job = score_items(items, {"faulty": reward, "red": Red()}, path)
    assert [*job.failed] == ["faulty"]
    assert told in describe(job.failed["faulty"])
    assert not job.missing()
    assert column(path, "faulty") == [None] * COUNT
    assert column(path, "red")[CHUNK:] == [32, 33, 34]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried")])
def test_want_of_memory_names_the_mends(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Failing, "error", error)
    job = score_items(items, {"failing": Failing()}, tmp_path / "s.parquet")
    assert "--batch-size" in describe(job.failed["failing"])


def test_an_interruption_keeps_what_was_scored(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.parquet"
    monkeypatch.setattr(Failing, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        score_items(items, {"failing": Failing()}, path)
    assert column(path, "failing")[:13] == list(range(13))


def test_scores_are_written_while_the_job_runs(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.rewards.engine, "SAVE_EVERY", 0.0)
    path, seen = tmp_path / "s.parquet", []
    report: Callable[[str, int], None] = lambda name, count: seen.append(path.exists())  # noqa: E731
    score_items(items, {"red": Red()}, path, None, report)
    assert seen == [False, True]


def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_scored(
    items: list[Item], tmp_path: Path
) -> None:
    broken = Item("p", 0, "broken.png", "0" * 64, lambda: b"no image")
    path = tmp_path / "s.parquet"
    job = score_items([broken, *items[:2]], {"red": Red()}, path)
    assert column(path, "red") == [None, 0, 1]
    assert str(job.unread["broken.png"]).startswith("broken.png: expected an image")


def test_an_image_is_opened_once_for_all_rewards_and_prompts(
    items: list[Item], tmp_path: Path
) -> None:
    opened: list[int] = []
    encoded = items[5].read()

    def read() -> bytes:
        opened.append(1)
        return encoded

    many = [Item(f"p{n}", 0, "one.png", "1" * 64, read) for n in range(3)]
    score_items(many, {"red": Red(), "crimson": Crimson()}, tmp_path / "s.parquet")
    assert opened == [1]


class Heavy(Red):
    """A model of a size, which counts how often it is loaded."""

    def __init__(self, key: str, size: int) -> None:
        super().__init__()
        self.key, self.size, self.loads = key, size, 0

    @property
    def model_key(self) -> str:
        return self.key

    @property
    def memory(self) -> int:
        return self.size


@pytest.mark.parametrize(
    ("memory", "groups"),
    [
        (None, [["a", "c", "b"]]),
        (10, [["a", "c", "b"]]),
        (9, [["a", "c"], ["b"]]),
        (1, [["a", "c"], ["b"]]),
    ],
)
def test_rewards_take_turns_where_memory_is_short(
    memory: int | None, groups: list[list[str]]
) -> None:
    rewards = {"a": Heavy("x", 5), "b": Heavy("y", 5), "c": Heavy("x", 5)}
    assert [list(group) for group in bench.rewards.engine._passes(rewards, memory)] == groups


def test_a_file_that_holds_no_scores_is_refused(items: list[Item], tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="give another one by --out"):
        score_items(items, {"red": Red()}, path)


def test_scores_are_csv_by_the_suffix_and_a_cache_like_any(
    items: list[Item], tmp_path: Path
) -> None:
    odd = [replace(item, prompt=prompt) for item, prompt in zip(items, ODD, strict=False)]
    more = [*odd, *items[len(odd) : CHUNK]]
    for name in ("s.csv", "s.parquet"):
        score_items(more, {"red": Red()}, tmp_path / name)
        again = Red()
        score_items(more, {"red": again}, tmp_path / name)
        assert again.calls == [2]  # The two that are not finite.
    written = csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text(), newline=""))
    expected = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [dict(row) for row in written] == [
        {key: "" if value is None else str(value) for key, value in row.items()}
        | {"score": "" if row["score"] is None else f"{row['score']:g}"}
        for row in expected
    ]


def test_rows_name_the_file_of_their_image(items: list[Item], tmp_path: Path) -> None:
    score_items(items, {"red": Red()}, tmp_path / "s.parquet")
    assert column(tmp_path / "s.parquet", "red", "file") == [item.name for item in items]
    assert (tmp_path / items[0].name).is_file()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scores_of_before_files_were_named_are_a_cache(
    items: list[Item], tmp_path: Path, suffix: str
) -> None:
    path, reward = tmp_path / f"s.{suffix}", Red()
    score_items(items[:5], {"red": reward}, tmp_path / "now.parquet")
    old = pq.read_table(tmp_path / "now.parquet").drop_columns(["file"])
    write = pq.write_table if suffix == "parquet" else arrow_csv.write_csv
    write(old, path)
    again = Red()
    score_items(items[:3], {"red": again}, path)
    assert not hasattr(again, "calls")
    read = pq.read_table if suffix == "parquet" else arrow_csv.read_csv
    names = [row["file"] or None for row in read(path).to_pylist()]
    assert names == [*(item.name for item in items[:3]), None, None]


def test_what_another_process_writes_meanwhile_stays(items: list[Item], tmp_path: Path) -> None:
    path, others = tmp_path / "s.parquet", items[3:6]

    def meanwhile(name: str, count: int) -> None:
        score_items(others, {"red": Red()}, path)

    score_items(items[:3], {"red": Red()}, path, None, meanwhile)
    assert column(path, "red") == [0, 1, 2, 3, 4, 5]


def test_a_bit_that_changed_on_the_disk_is_no_score(items: list[Item], tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    score_items(items, {"red": Red()}, path)
    scores = pq.ParquetFile(path).metadata.row_group(0).column(5)
    data = bytearray(path.read_bytes())
    start = scores.dictionary_page_offset or scores.data_page_offset
    data[start + scores.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="expected scores that this command has written, got"):
        score_items(items, {"red": Red()}, path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scores_that_somebody_changed_are_refused_and_stay(
    items: list[Item], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"s.{suffix}"
    score_items(items[:3], {"red": Red()}, path)
    if suffix == "csv":
        path.write_text(path.read_text().replace(",2,", ",7,"))
    else:
        pq.write_table(pq.read_table(path), path, compression="zstd")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"got other bytes .* restore the file or move it away"):
        score_items(items, {"red": Red()}, path)
    assert path.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
import numpy as np
from bench.images.read import read_items
from bench.rewards.engine import score_items
from bench.rewards.base import Card, Reward
class Named(Reward):
    card = Card(name=sys.argv[1], scale="", range=(0, 255), weights=(), preprocessing="none",
                text=None, trained_on=(), licence="none", origin="rule")
    def load(self): pass
    def score(self, images, prompts): return np.zeros(len(images), np.float32)
print(flush=True)
sys.stdin.readline()
score_items(read_items(Path(sys.argv[2])), {sys.argv[1]: Named()}, Path(sys.argv[3]))
"""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_several_writers_of_one_file_lose_nothing(
    items: list[Item], folder: Path, tmp_path: Path, suffix: str
) -> None:
    """Four processes that begin at once, and two names of the file."""
    path, link = tmp_path / f"s.{suffix}", tmp_path / f"link.{suffix}"
    link.symlink_to(path)
    names, script = ["a", "b", "c", "d"], tmp_path / "writer.py"
    script.write_text(WRITER)
    writers = [
        subprocess.Popen(
            [sys.executable, str(script), name, str(folder), str(link if name > "b" else path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in names
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=120) and writer.returncode for writer in writers] == [0] * 4
    read = pq.read_table if suffix == "parquet" else arrow_csv.read_csv
    found = Counter(read(path)["reward"].to_pylist())
    assert found == dict.fromkeys(names, len(items))
    assert link.is_symlink()


def test_a_folder_in_the_place_of_the_scores_is_told_before_the_work(
    items: list[Item], tmp_path: Path
) -> None:
    reward = Red()
    with pytest.raises(UserError, match="expected a file, got a folder"):
        score_items(items, {"red": reward}, tmp_path)
    assert not hasattr(reward, "calls")


def test_how_float32_is_multiplied_is_part_of_a_signature_and_said_to_torch() -> None:
    """TF32 scores on a GPU are others, and never share a column with those in float32."""
    plain, rounded = (
        make_reward("mini-clip", Scoring(matmul=matmul), Shared()) for matmul in ("float32", "tf32")
    )
    assert plain.signature.split("|")[3] == "float32"
    assert rounded.signature.split("|")[3] == "float32, tf32"
    picture = Image.new("RGB", (64, 64), "red")
    for reward, allowed in ((rounded, True), (plain, False)):
        run(reward, [picture], ["a red circle"])
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is allowed


def test_scores_that_another_replaces_are_read_whole(tmp_path: Path) -> None:
    """Those of before or of after, and never the end of one with the middle of another."""
    path, ended = tmp_path / "pool.parquet", threading.Event()
    sizes = (5, 3000)
    tables = [
        pa.table(
            {
                "prompt": [str(i % 7) for i in range(n)],
                "k": range(n),
                "image_sha256": [str(i) for i in range(n)],
                "reward": ["red"] * n,
                "signature": ["red|1"] * n,
                "score": [i / 8 for i in range(n)],
                "file": [f"{i}.png" for i in range(n)],
            },
            schema=SCHEMA,
        )
        for n in sizes
    ]

    def replace_it() -> None:
        while not ended.is_set():
            for table in tables:
                write_atomically(path, lambda part, t=table: pq.write_table(t, part))

    pq.write_table(tables[0], path)
    writer = threading.Thread(target=replace_it)
    writer.start()
    try:
        found = {len(bench.rewards.engine._read(path)) for _ in range(300)}
    finally:
        ended.set()
        writer.join()
    assert found <= set(sizes)


def test_images_without_bytes_are_rows_without_a_hash(items: list[Item], tmp_path: Path) -> None:
    """Each of them, though they have one hash: none."""

    def read() -> bytes:
        raise UserError("gone")

    path, lost = tmp_path / "s.parquet", [Item("p", n, f"{n}.png", "", read) for n in range(2)]
    job = score_items([*lost, *items[:2]], {"red": Red()}, path)
    assert column(path, "red") == [None, None, 0, 1]
    assert column(path, "red", "image_sha256")[:2] == [None, None]
    assert [*job.unread] == ["0.png", "1.png"]
    assert score_items([*lost, *items[:2]], {"red": Red()}, path).scores == job.scores
