"""``bench data label`` that is interrupted: nothing that was scored is scored again."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import bench.pairs.label
from bench.pairs.label import label_pairs
from bench.rewards.base import Card, Reward, Scores
from trainers.data.sources import Source, make_source
from trainers.errors import UserError

PAIRS = 10
DAMAGED = 3
"""The row with no image in it, so that 9 pairs are scored, 2 at a time: 5 calls for each side."""


class Brightness(Reward):
    """Mean level, counted, with no score for one prompt; it may end the process."""

    card = Card(name="brightness", scale="mean", range=(0, 255), weights=(), preprocessing="none",
                text=None, trained_on=(), licence="-", origin="rule")  # fmt: skip
    scored = 0
    last: int | None = None
    """Images after which the process is killed."""

    def load(self) -> None: ...

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        if self.last is not None and self.scored >= self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.scored += len(images)
        levels = [np.asarray(image.convert("L")).mean() / 3 for image in images]
        return np.float32(
            [np.nan if p == "p5" else x for x, p in zip(levels, prompts, strict=True)]
        )


class Darkness(Brightness):
    card = Brightness.card.model_copy(update={"name": "darkness", "direction": "lower"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Noise, one pair of it damaged."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(PAIRS):
        images = []
        for _ in range(2):
            stream = pa.BufferOutputStream()
            Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
            images.append(stream.getvalue().to_pybytes())
        zero = b"no image" if i == DAMAGED else images[0]
        rows.append({"caption": f"p{i}", "jpg_0": zero, "jpg_1": images[1], "label_0": i % 2})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


@pytest.fixture
def source(path: Path) -> Source:
    return make_source(str(path))


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.pairs.label, "GROUP", 2)


KILLED = """
import sys
from pathlib import Path
import bench.pairs.label
from tests.bench.pairs.test_label import Brightness
from trainers.data.sources import make_source

bench.pairs.label.GROUP = 2
reward = Brightness()
reward.last = 10
bench.pairs.label.label_pairs(make_source(sys.argv[1]), reward, Path(sys.argv[2]), 1.0)
"""


def kept(out: Path) -> Path:
    return out.with_name(f".{out.name}.scores")


def killed(path: Path, out: Path) -> None:
    """Label in a process that dies when it has scored 10 of 18 images, 8 of them in pairs."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(out)],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        timeout=600,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not out.exists()


def test_killed_in_the_middle_it_scores_the_rest(
    path: Path, source: Source, tmp_path: Path
) -> None:
    """The same bytes and the same counts as those of an undisturbed run, and no file more."""
    (tmp_path / "new").mkdir()
    whole, out, reward = tmp_path / "whole.parquet", tmp_path / "new/out.parquet", Brightness()
    expected = label_pairs(source, reward, whole, tie=1.0)
    assert (expected.written, expected.damaged, expected.unscored, reward.scored) == (9, 1, 1, 18)
    assert not kept(whole).exists()

    killed(path, out)
    assert len(kept(out).read_text().splitlines()) == 4
    reward = Brightness()
    assert label_pairs(source, reward, out, tie=1.0) == expected
    assert reward.scored == 18 - 8
    assert out.read_bytes() == whole.read_bytes()
    assert not kept(out).exists()


def test_only_scores_that_would_be_the_same_are_taken(
    path: Path, source: Source, tmp_path: Path
) -> None:
    """Another tie takes them all; another reward none; a changed image costs its group."""
    out = tmp_path / "out.parquet"
    killed(path, out)
    left = kept(out).read_bytes()

    other = Darkness()
    label_pairs(source, other, tmp_path / "dark.parquet", tie=1.0)
    kept(out).rename(kept(tmp_path / "again.parquet"))
    other = Darkness()
    label_pairs(source, other, tmp_path / "again.parquet", tie=1.0)
    assert other.scored == 18
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "dark.parquet").read_bytes()

    kept(out).write_bytes(left)
    reward = Brightness()
    label_pairs(source, reward, out, tie=50.0)
    assert reward.scored == 10

    rows = pq.read_table(path).to_pylist()
    rows[0]["jpg_0"] = rows[0]["jpg_1"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    kept(tmp_path / "changed.parquet").write_bytes(left)
    reward = Brightness()
    label_pairs(make_source(str(path)), reward, tmp_path / "changed.parquet", tie=1.0)
    assert reward.scored == 10 + 4
    assert pq.read_table(tmp_path / "changed.parquet")["label_0"][0].as_py() == 0.5


def test_a_line_that_was_cut_short_is_made_again(
    path: Path, source: Source, tmp_path: Path
) -> None:
    """With the rest of its group, as in an undisturbed run."""
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    killed(path, out)
    kept(out).write_bytes(kept(out).read_bytes()[:-9])
    reward = Brightness()
    label_pairs(source, reward, out, tie=1.0)
    assert reward.scored == 10 + 4
    label_pairs(source, Brightness(), whole, tie=1.0)
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("place", [3, 60, 90, 300])
def test_kept_scores_that_were_changed_are_made_again_and_told(
    path: Path, source: Source, tmp_path: Path, capfd: pytest.CaptureFixture[str], place: int
) -> None:
    """A digit of a score, of a key or of a seal: its group is scored again."""
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    label_pairs(source, Brightness(), whole, tie=1.0)
    killed(path, out)
    data = bytearray(kept(out).read_bytes())
    data[place] ^= 1
    kept(out).write_bytes(data)
    reward = Brightness()
    label_pairs(source, reward, out, tie=1.0)
    assert reward.scored == 10 + 4
    assert out.read_bytes() == whole.read_bytes()
    assert capfd.readouterr().err.count("1 scores are damaged: they are made again") == 1


class Picky(Brightness):
    """Fails at the images of two prompts, or of all."""

    refused: tuple[str, ...] = ("p1", "p6")

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        if {*prompts} & {*self.refused}:
            raise RuntimeError("too odd")
        return super().score(images, prompts)


def test_pairs_that_the_reward_fails_at_are_left_out_and_named(
    source: Source, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    done = label_pairs(source, Picky(), out, tie=1.0)
    left = [f"p{i}" for i in range(PAIRS) if i not in (1, DAMAGED, 6)]
    assert pq.read_table(out)["caption"].to_pylist() == left
    assert (done.written, done.damaged) == (7, 3)
    assert [line.partition(": ")[0] for line in done.reasons] == [
        f"in.parquet row group 0 row {row}" for row in (1, DAMAGED, 6)
    ]
    assert done.reasons[0].endswith(": RuntimeError: too odd")


def test_a_reward_that_fails_at_all_is_one_line(source: Source, tmp_path: Path) -> None:
    reward = Picky()
    reward.refused = tuple(f"p{i}" for i in range(PAIRS))
    with pytest.raises(UserError, match=r"brightness: in\.parquet row group 0 row 0: Runtime"):
        label_pairs(source, reward, tmp_path / "out.parquet", tie=1.0)
