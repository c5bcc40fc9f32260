"""``bench data check`` and ``bench data label``, and pairs from an experiment's store."""

import gc
import io
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bench.cli import run
from bench.experiment.prepare import Experiment, prepare
from bench.pairs.label import label_pairs
from bench.rewards.base import Card, Reward, Scores
from bench.spec.model import override, parse_spec
from bench.stages.encode import CACHE, DROPPED, INDEX, EncodeStage, open_pairs
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.backbones import BACKBONES
from trainers.backbones.folders import load_part
from trainers.data.sources import make_source
from trainers.errors import UserError

Row = dict[str, Any]


def picture(level: int, size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    """One colour, with a corner that keeps it from being trivial."""
    image = Image.new("RGB", size, (level, level, level))
    image.putpixel((0, 0), (255, 0, 0))
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def row(caption: str, zero: bytes, one: bytes, label: float | None) -> Row:
    return {"caption": caption, "jpg_0": zero, "jpg_1": one, "label_0": label}


def write(path: Path, rows: Sequence[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=2)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    rows = [row(f"p{i}", picture(10 * i), picture(10 * i + 5), float(i % 2)) for i in range(5)]
    return write(tmp_path / "clean.parquet", rows)


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """A tie, two damaged rows, other sizes, and repetitions."""
    wide, whole = picture(1, (96, 64)), picture(2, kind="JPEG")
    rows = [
        row("a", whole, picture(3), 1.0),
        row("a", picture(3), whole, 0.0),
        row("b", whole, wide, 0.5),
        row("b", whole[:-40], picture(4), 1.0),
        row("", picture(5), b"not found", 0.0),
        row("c", picture(6), picture(6), 1.0),
    ]
    return write(tmp_path / "messy.parquet", rows)


def check(source: Path | str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run(["data", "check", str(source), "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_a_clean_source(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(clean, capsys)
    assert (code, found["problems"], found["warnings"]) == (0, [], [])
    assert (found["rows"], found["prompts"], found["labels"]["usable"]) == (5, 5, 5)
    assert (found["labels"]["image 0"], found["labels"]["image 1"]) == (2, 3)
    assert (found["sizes"], found["aspects"]) == ({"64 x 64": 10}, {"0.95 to 1.05": 10})


def test_what_a_run_drops_is_a_warning(messy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the place of every damaged row; exit code 0."""
    code, found = check(messy, capsys)
    assert (code, found["problems"]) == (0, [])
    assert found["corrupt"] == 2
    assert "messy.parquet row group 1 row 1: expected an image, got " in found["corrupt_at"][0]
    assert found["corrupt_at"][1].startswith("messy.parquet row group 2 row 0: expected an image")
    assert found["labels"] == {"image 0": 3, "image 1": 2, "tie": 1, "none": 0, "usable": 3}
    assert found["sizes"] == {"64 x 64": 7, "96 x 64": 1}
    assert found["aspects"] == {"0.95 to 1.05": 7, "1.34 to 2": 1}
    # Row 1 is row 0 with its images exchanged; the winner's bytes are in row 2 once more.
    assert (found["repeated_pairs"], found["repeated_images"], found["same_images"]) == (1, 4, 1)
    assert (found["prompts"], found["empty_prompts"]) == (4, 1)
    assert found["pairs_per_prompt"] == {"median": 1.5, "mean": 1.5, "max": 2.0}
    assert len(found["warnings"]) == 5


def test_what_a_run_refuses_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every illegal label is counted and placed; exit code 1, as for a run."""
    rows = [row("a", picture(1), picture(2), label) for label in (0.7, 1.0, None)]
    code, found = check(write(tmp_path / "bad.parquet", rows), capsys)
    assert (code, found["illegal"]) == (1, 2)
    assert found["illegal_at"] == [
        "bad.parquet row group 0 row 0: 0.7", "bad.parquet row group 1 row 0: null or NaN"
    ]  # fmt: skip
    ties = write(tmp_path / "ties.parquet", [row("a", picture(1), picture(2), 0.5)])
    code, found = check(ties, capsys)
    assert (code, found["problems"]) == (1, ["no pair is left to learn from"])


def test_the_table(messy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", f"{{name: parquet, path: {messy}}}"]) == 0
    out = capsys.readouterr().out
    for text in ("6 rows", "damaged or missing images", "row group 2 row 0", "2 sizes"):
        assert text in out
    assert run(["data", "check", "{name: parquet"]) == 1
    assert run(["data", "check", "nowhere.parquet"]) == 1


class Brightness(Reward):
    """Mean level; no score for prompts that say so."""

    card = Card(name="brightness", scale="mean", range=(0, 255), weights=(), preprocessing="none",
                text=None, trained_on=(), licence="-", origin="rule")  # fmt: skip

    def load(self) -> None: ...

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
        levels = [np.asarray(image.convert("L")).mean() for image in images]
        return np.float32(
            [np.nan if p == "nan" else x for x, p in zip(levels, prompts, strict=True)]
        )


class Darkness(Brightness):
    card = Brightness.card.model_copy(update={"direction": "lower"})


@pytest.mark.parametrize("kind", [Brightness, Darkness])
def test_labels_by_a_reward(tmp_path: Path, kind: type[Reward]) -> None:
    """The better image by its scores, whatever people said; damaged rows are left out."""
    rows = [
        row("a", picture(50), picture(80), 1.0),
        row("b", picture(90), picture(80), 1.0),
        row("c", picture(81), picture(80), 0.0),
        row("nan", picture(90), picture(80), 1.0),
        row("d", b"damaged", picture(80), 1.0),
    ]
    out = tmp_path / "out.parquet"
    source = make_source(str(write(tmp_path / "in.parquet", rows)))
    done = label_pairs(source, kind(), out, tie=2.0)
    up = kind is Brightness
    table = pq.read_table(out)
    assert table["label_0"].to_pylist() == [0.0 if up else 1.0, 1.0 if up else 0.0, 0.5, 0.5]
    assert table["label_1"].to_pylist() == [1 - x for x in table["label_0"].to_pylist()]
    assert table["has_label"].to_pylist() == [True, True, True, False]
    assert table["jpg_0"].to_pylist() == [r["jpg_0"] for r in rows[:4]]
    assert table.schema.metadata[b"labelled_by"].decode() == kind().signature
    assert (done.written, done.ties, done.unscored, done.damaged) == (4, 1, 1, 1)
    assert (done.agree, done.decided) == (1, 2)
    with pytest.raises(UserError, match="is there already"):
        label_pairs(source, kind(), out, tie=2.0)


def test_the_label_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the oracle, which reads the captions of the miniature world."""
    caption = "a small red circle at the left on a white background"
    source = write(tmp_path / "in.parquet", [row(caption, picture(9), picture(200), 1.0)] * 3)
    out = tmp_path / "new.parquet"
    arguments = [str(source), "--reward", "oracle", "--out", str(out), "--tie", "2"]
    assert run(["data", "label", *arguments]) == 0
    assert "3 pairs, 3 ties, 0 without a score, 0 damaged" in capsys.readouterr().out
    code, found = check(out, capsys)
    assert (code, found["rows"], found["labels"]["tie"]) == (1, 3, 3)


def experiment(tiny: dict[str, Any], source: Path, changes: Mapping[str, Any]) -> Experiment:
    tiny = override(tiny, {"data": str(source), "train.data": {"resolution": 64}, **changes})
    return prepare(parse_spec(tiny, "here"))


def ids(found: Experiment) -> list[str]:
    return [stage.id for stage in found.stages()]


def test_what_enters_the_identity_of_stages(
    tiny: dict[str, Any], messy: Path, tmp_path: Path
) -> None:
    """Neither the place of the data nor whether, or how fast, encodings are kept."""
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "other.parquet").write_bytes(messy.read_bytes())
    base = ids(experiment(tiny, messy, {}))
    assert ids(experiment(tiny, moved, {})) == base
    off = {"encoding": {"cache": False, "batch_size": 3}}
    assert ids(experiment(tiny, messy, off)) == base
    for key, value in (("ties", "soft"), ("seed", 1), ("precision", "float16"), ("subset", 2)):
        assert not set(ids(experiment(tiny, messy, {f"train.data.{key}": value}))) & set(
            s.id for s in experiment(tiny, messy, {}).stages() if s.kind in ("encode", "train")
        )


def test_arms_may_differ_in_their_data(tiny: dict[str, Any], messy: Path) -> None:
    """A control with swapped labels is a run of its own that shares its encodings."""
    tiny["controls"] = {
        "swapped": {"of": "DPO", "set": {"data.swap_labels": True}},
        "soft": {"of": "DPO", "set": {"data.ties": "soft"}},
    }
    found = experiment(tiny, messy, {})
    kinds = [stage.kind for stage in found.stages()]
    assert (kinds.count("encode"), kinds.count("train")) == (2, 2 * (4 + 2))
    assert (found.pairs, found.ties) == (5, 1)


def test_pairs_that_were_labelled_teach_by_their_scores(
    tiny: dict[str, Any], clean: Path, tmp_path: Path
) -> None:
    """What ``label`` writes is read by ``labels: probability``; without scores it is refused."""
    soft = {"train.data": {"labels": "probability", "temperature": 8.0, "resolution": 64}}
    with pytest.raises(UserError, match="score_0, score_1 of every pair"):
        experiment(tiny, clean, soft)
    labelled = tmp_path / "labelled.parquet"
    label_pairs(make_source(str(clean)), Brightness(), labelled, tie=0.0)
    train = next(s for s in experiment(tiny, labelled, soft).stages() if isinstance(s, TrainStage))
    train.encode.execute(Store(tmp_path), lambda images: None)
    stored = train.encode.stored(Store(tmp_path))
    pairs = open_pairs(stored, BACKBONES.get(train.encode.backbone)(train.base), train.config.data)
    found = pairs.preference(torch.arange(5))
    scores = pq.read_table(labelled, columns=["score_0", "score_1"]).to_pydict()
    gaps = np.abs(np.subtract(*scores.values())) / 8
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-gaps)), rtol=1e-6)
    assert float(found.min()) > 0.5


def test_a_stage_with_and_without_a_cache(
    tiny: dict[str, Any], messy: Path, tmp_path: Path
) -> None:
    """The same outputs; the same pairs; and encodings that were deleted are made again."""
    digests, means = [], []
    for cache in (True, False):
        found = experiment(tiny, messy, {"encoding": {"cache": cache}})
        train = next(s for s in found.stages() if isinstance(s, TrainStage))
        stage: EncodeStage = train.encode
        store = Store(tmp_path / str(cache))
        done: list[int] = []
        digests.append(stage.execute(store, done.append).digest)
        assert done[-1] == stage.units == 10
        assert {p.name for p in stage.output(store).glob("[!.]*")} == {
            INDEX, DROPPED, "status.json"
        }  # fmt: skip
        dropped = json.loads((stage.output(store) / DROPPED).read_text())
        assert [d["row"] for d in dropped] == [3, 4]
        encodings = list((store.root / CACHE).rglob("*.safetensors"))
        assert len(encodings) == (2 if cache else 0)
        backbone = BACKBONES.get(stage.backbone)(stage.base)
        data = open_pairs(stage.stored(store), backbone, train.config.data)
        assert len(data) == 3
        means.append(data.images(torch.arange(3))[0].mean)
        for path in encodings:
            path.unlink()
        if cache:
            again = open_pairs(stage.stored(store), backbone, train.config.data)
            assert torch.equal(again.images(torch.arange(3))[0].mean, means[0])
    assert digests[0] == digests[1]
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-5)


def test_encoders_are_in_memory_only_while_they_encode(
    tiny: dict[str, Any], messy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is loaded where the cache holds all, and none stays where it has lost something.

    Text encoders are loaded in the precision of the settings, the autoencoder in float32.
    """
    loaded: list[tuple[str, torch.dtype, weakref.ref[Any]]] = []

    def load(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
        model = load_part(kind, folder, dtype)
        loaded.append((folder.name, dtype, weakref.ref(model)))
        return model

    monkeypatch.setattr("trainers.backbones.latent.load_part", load)
    found = experiment(tiny, messy, {"train.data.precision": "bfloat16"})
    train = next(s for s in found.stages() if isinstance(s, TrainStage))
    store = Store(tmp_path / "store")
    train.encode.execute(store, lambda images: None)
    expected = {("vae", torch.float32), ("text_encoder", torch.bfloat16)}
    assert {(part, dtype) for part, dtype, _ in loaded} == expected
    loaded.clear()
    backbone = BACKBONES.get(train.config.backbone)(train.base)
    open_pairs(train.encode.stored(store), backbone, train.config.data)
    assert loaded == []
    for path in (store.root / CACHE).rglob("*.safetensors"):
        path.unlink()
    open_pairs(train.encode.stored(store), backbone, train.config.data)
    assert {(part, dtype) for part, dtype, _ in loaded} == expected
    gc.collect()
    assert [part for part, _, model in loaded if model() is not None] == []


def test_a_train_command_keeps_its_encodings(
    tiny: dict[str, Any],
    write_spec: Callable[[Mapping[str, Any]], str],
    clean: Path,
    tmp_path: Path,
) -> None:
    """Run again after it is done, it encodes nothing; the network is where it says."""
    spec = write_spec(override(tiny, {"data": str(clean), "train.steps": 2}))
    for _ in range(2):
        assert run(["train", "DPO", spec, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "unet").is_dir()
    assert len(list((tmp_path / "out" / "store" / CACHE).rglob("*.safetensors"))) == 2
