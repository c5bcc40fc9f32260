"""A result folder knows every image, and holds the declared pictures within their limit."""

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from bench.experiment.collect import make_protocol
from bench.experiment.pictures import SMALL, THUMBNAIL, clear_pictures, collect_images
from bench.experiment.prepare import Experiment
from bench.results.files import IMAGES, write_results
from bench.results.pictures import read_images, read_pictures
from bench.stages.store import Store
from trainers.errors import UserError

Finished = Callable[..., tuple[Experiment, Store, pa.Table]]
ARMS = {"base", "DPO", "DPO+A", "DPO+B", "DPO+A+B"}


def shipped(images: pa.Table) -> list[dict[str, Any]]:
    return [row for row in images.to_pylist() if row["picture"]]


def test_every_scored_image_has_one_row_with_its_prompt(finished: Finished, tmp_path: Path) -> None:
    experiment, store, scores = finished({"prompt_limit": 3, "rewards": ["oracle", "mini-clip"]})
    images = collect_images(experiment, store, scores, tmp_path / "r").to_pylist()
    assert len(images) * 2 == len(scores), "two rewards have scored each"
    order = [(r["arm"], r["train_seed"], r["prompt_id"], r["k"]) for r in scores.to_pylist()]
    told = [(row["arm"], row["seed"], row["prompt_id"], row["k"]) for row in images]
    assert told == list(dict.fromkeys(order))
    prompts = dict(experiment.prompts.items)
    said = {
        (row["arm"], row["train_seed"], row["prompt_id"], row["k"]): row["image_sha256"]
        for row in scores.to_pylist()
    }
    for row in images:
        assert said[row["arm"], row["seed"], row["prompt_id"], row["k"]] == row["sha256"]
        assert row["prompt"] == prompts[row["prompt_id"]]


def test_the_declared_subset_is_there_as_it_was_generated(
    finished: Finished, tmp_path: Path
) -> None:
    experiment, store, scores = finished({"prompt_limit": 5, "pictures": {"prompts": 2}})
    rows = shipped(collect_images(experiment, store, scores, tmp_path))
    first = {name for name, _ in experiment.prompts.items[:2]}
    assert {(r["arm"], r["seed"], r["prompt_id"]) for r in rows} == {
        (arm, None if arm == "base" else 0, name) for arm in ARMS for name in first
    }
    for row in rows:
        assert row["picture"] == f"pictures/{row['sha256']}.png"
        data = (tmp_path / row["picture"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"] == row["picture_sha256"]
    assert len([*(tmp_path / "pictures").iterdir()]) == len(rows)


def test_a_large_image_becomes_a_thumbnail(finished: Finished, tmp_path: Path) -> None:
    experiment, store, scores = finished({"pictures": {"prompts": 1}}, side=2 * SMALL + 64)
    rows = shipped(collect_images(experiment, store, scores, tmp_path))
    for row in rows:
        data = (tmp_path / row["picture"]).read_bytes()
        assert row["picture"].endswith(f"{row['sha256']}.jpg")
        assert hashlib.sha256(data).hexdigest() == row["picture_sha256"] != row["sha256"]
        assert Image.open(io.BytesIO(data)).size == (THUMBNAIL, THUMBNAIL)


def test_fewer_prompts_have_pictures_where_the_limit_is_reached(
    finished: Finished, tmp_path: Path
) -> None:
    experiment, store, scores = finished({"prompt_limit": 6})
    all_rows = shipped(collect_images(experiment, store, scores, tmp_path / "all"))
    size = sum(path.stat().st_size for path in (tmp_path / "all/pictures").iterdir())
    limit = {"prompt_limit": 6, "pictures.limit_mb": size / 2 / 1e6}
    shutil.rmtree(store.root)
    experiment, store, scores = finished(limit)
    rows = shipped(collect_images(experiment, store, scores, tmp_path / "half"))
    kept = sum(path.stat().st_size for path in (tmp_path / "half/pictures").iterdir())
    assert 0 < kept <= size / 2
    prompts = {row["prompt_id"] for row in rows}
    assert 0 < len(prompts) < 6
    assert rows == [row for row in all_rows if row["prompt_id"] in prompts], "whole prompts"


def test_pictures_stay_without_the_store_and_go_when_they_are_not_declared(
    finished: Finished, tmp_path: Path
) -> None:
    experiment, store, scores = finished()
    folder = tmp_path / "r"
    images = collect_images(experiment, store, scores, folder)
    write_results(folder, make_protocol(experiment), scores, None, {IMAGES: images})
    shutil.rmtree(store.root)
    assert collect_images(experiment, Store(store.root), scores, folder) == images
    clear_pictures(folder, images)
    assert len([*read_pictures(folder)]) == len({row["picture"] for row in shipped(images)})
    clear_pictures(folder, images.slice(0, 1))
    assert [path.stem for path in (folder / "pictures").iterdir()] == [images["sha256"][0].as_py()]


def test_a_picture_that_was_changed_is_refused(finished: Finished, tmp_path: Path) -> None:
    experiment, store, scores = finished()
    folder = tmp_path / "r"
    images = collect_images(experiment, store, scores, folder)
    write_results(folder, make_protocol(experiment), scores, None, {IMAGES: images})
    known = read_images(folder)
    assert known is not None and len(known) == len(images)
    picture = folder / shipped(images)[0]["picture"]
    picture.write_bytes(picture.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"\.png is damaged: run .* records sha256"):
        [*read_pictures(folder)]
    picture.unlink()
    with pytest.raises(UserError, match=r"no file .*\.png"):
        [*read_pictures(folder)]


def test_a_place_outside_of_the_folder_is_refused(finished: Finished, tmp_path: Path) -> None:
    experiment, store, scores = finished()
    images = collect_images(experiment, store, scores, tmp_path)
    rows = images.to_pylist()
    rows[0]["picture"] = "../secret.png"
    wrong = pa.Table.from_pylist(rows, images.schema)
    write_results(tmp_path, make_protocol(experiment), scores, None, {IMAGES: wrong})
    with pytest.raises(UserError, match=r"'\.\./secret\.png' is no place of a picture"):
        read_images(tmp_path)
