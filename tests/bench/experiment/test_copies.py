"""Images are copied out under names that say what they are."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from bench.cli import run
from bench.experiment.collect import make_manifest, make_protocol
from bench.experiment.copies import LONGEST, distinct, safe
from bench.experiment.pictures import collect_images
from bench.experiment.prepare import Experiment
from bench.results.files import IMAGES, write_results
from bench.stages.store import Store
from trainers.files import sha256_file

Finished = Callable[..., tuple[Experiment, Store, pa.Table]]


@pytest.fixture
def result(finished: Finished, tmp_path: Path) -> tuple[Path, pa.Table]:
    experiment, store, scores = finished()
    folder = tmp_path / "tiny"
    images = collect_images(experiment, store, scores, folder)
    manifest = make_manifest(experiment, store)
    write_results(folder, make_protocol(experiment), scores, manifest, {IMAGES: images})
    return folder, images


def test_every_image_is_there_by_prompt_arm_seed_and_number(
    result: tuple[Path, pa.Table], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, images = result
    assert run(["images", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: {len(images)} images\n"
    found = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png")}
    ids = list(dict.fromkeys(images["prompt_id"].to_pylist()))
    names = {"A/A'": "A A'", "A/A": "A A"}
    for row in images.to_pylist():
        arm = names.get(row["arm"], row["arm"])
        seed = "" if row["seed"] is None else f", seed {row['seed']}"
        prompt = f"{ids.index(row['prompt_id']) + 1:05d} {row['prompt']}"
        place = Path(prompt) / f"{arm}{seed}, {row['k']}.png"
        assert sha256_file(tmp_path / "out" / place) == row["sha256"]
        found.discard(place)
    assert not found


def test_a_store_that_lacks_an_image_is_told_of_before_any_is_written(
    result: tuple[Path, pa.Table], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, images = result
    first = next((tmp_path / "store/images").glob("*/*.png"))
    first.write_bytes(first.read_bytes()[:-1])
    assert run(["images", str(folder), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"bench: {tmp_path / 'store'} lacks 1 of the {len(images)} images")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "store")
    arguments = ["images", str(folder), "--out", str(tmp_path / "out"), "--store", str(tmp_path)]
    assert run(arguments) == 1
    assert f"{tmp_path} lacks {len(images)} of" in capsys.readouterr().err


def test_a_folder_without_an_index_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = Path(__file__).parents[3] / "results" / "first-world"
    assert run(["images", str(committed), "--out", str(tmp_path / "out")]) == 1
    assert f"{committed} holds no images.parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a red square", "a red square"),
        ("../../etc/passwd", "etc passwd"),
        ("a\nb\0c\td", "a b c d"),
        ('<b>|?*:"\\', "b"),
        ("ein blaues Fünfeck, groß", "ein blaues Fünfeck, groß"),
        ("...", ""),
        ("x" * 500, "x" * LONGEST),
        ("é" * 500, "é" * (LONGEST // 2)),
    ],
)
def test_a_name_is_safe_whatever_the_text(text: str, name: str) -> None:
    assert safe(text) == name


def test_names_stay_apart() -> None:
    names = ["A/A", "A\\A", "a a", "???", "!!!"]
    assert distinct(names) == {
        "A/A": "A A", "A\\A": "A A (2)", "a a": "a a (3)", "???": "(2)", "!!!": "(3)",
    }  # fmt: skip
