"""``bench verify``: each way in which a contributed folder can be wrong is one line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli import run
from bench.report.verify import faults
from bench.results.files import (
    IMAGES,
    MANIFEST,
    PROTOCOL,
    SCORES,
    read_manifest,
    read_protocol,
    write_results,
)
from bench.results.manifest import Manifest
from bench.results.pictures import SCHEMA
from bench.results.protocol import Protocol
from trainers.files import canonical_json, sha256_text

COMMITTED = Path(__file__).parents[3] / "results" / "first-world"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(COMMITTED, tmp_path / "mini")
    return tmp_path / "mini"


def rewrite(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change scores as somebody would who seals them anew."""
    scores = pq.read_table(folder / SCORES)
    changed = change(scores.to_pandas(types_mapper={}.get))
    changed = changed.astype({"train_seed": "Int64"})
    table = type(scores).from_pandas(changed, preserve_index=False)
    write_results(folder, read_protocol(folder), table, None)


def test_the_committed_evidence_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(COMMITTED) == []
    assert run(["verify", str(COMMITTED)]) == 0
    assert run(["verify", str(COMMITTED.parent)]) == 0
    assert "is whole: hashes, manifest and tables" in capsys.readouterr().out


@pytest.mark.parametrize("name", [SCORES, PROTOCOL])
def test_damage_is_one_line(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert run(["verify", str(folder)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(f"bench: {folder / name} is damaged")


def test_every_fault_has_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "table.md").write_text("0.0326")
    (folder / "table.csv").unlink()
    (folder / MANIFEST).unlink()
    assert run(["verify", str(folder)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"bench: {folder}/table.md: not what the scores give: run 'bench table {folder}'",
        f"bench: {folder}/table.csv: missing: run 'bench table {folder}'",
        f"bench: {folder} holds no manifest.json: give a folder that 'bench ablate' has written",
    ]


def doubled(scores: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([scores, scores.head(3).assign(score=1.0)])


def lacking(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[~(scores["reward"].eq("mini-clip") & scores["prompt_id"].eq("mini-test-000"))][3:]


def lost(scores: pd.DataFrame) -> pd.DataFrame:
    few = [f"mini-test-{n:03d}" for n in range(5)]
    return scores[~(scores["reward"].eq("mini-clip") & scores["prompt_id"].isin(few))]


def redrawn(scores: pd.DataFrame) -> pd.DataFrame:
    other = scores["reward"].eq("mini-clip") & scores["prompt_id"].eq("mini-test-000")
    return scores.assign(image_sha256=scores["image_sha256"].mask(other, "f" * 64))


def trained_again(scores: pd.DataFrame) -> pd.DataFrame:
    other = scores["arm"].eq("DPO") & scores["train_seed"].eq(3)
    return scores.assign(run_id=scores["run_id"].mask(other, "f" * 64))


def rebased(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.assign(run_id=scores["run_id"].mask(scores["arm"].eq("base"), "f" * 64))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (doubled, ["3 scores are of an image that has one by the same reward already"]),
        (lacking, []),
        (lost, ["215 of 8600 scores of mini-clip are missing, more than 1%"]),
        (redrawn, ["43 images have another sha256 by one reward than by another"]),
        (trained_again, ["it knows not all runs that there are scores of"]),
        (rebased, ["the base model is not the one that there are scores of"]),
    ],
)
def test_scores_that_were_changed_and_sealed_again_are_seen(
    folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], expected: list[str]
) -> None:
    """By hand: mini-clip has 43 image sets, so that 5 prompts are 215 of its 8600 scores."""
    rewrite(folder, change)
    found = [fault for fault in faults(folder) if "table." not in fault]
    assert len(found) == len(expected)
    for fault, part in zip(found, expected, strict=True):
        assert part in fault and "\n" not in fault


def changed_manifest(folder: Path, **keys: Any) -> None:
    manifest = read_manifest(folder)
    whole = Manifest.model_validate(manifest.model_dump(mode="json") | keys)
    said = whole.model_dump(mode="json")
    sealed = {"schema": 3, "sha256": sha256_text(canonical_json(said)), **said}
    (folder / MANIFEST).write_text(json.dumps(sealed))


def test_a_manifest_of_another_result_is_seen(folder: Path) -> None:
    said = read_manifest(folder).model_dump(mode="json")
    cards = {name: card | {"signature": "x"} for name, card in said["rewards"].items()}
    said["inputs"]["prompts"]["n"] = 7
    said["inputs"]["pairs"]["ties"] = 7
    said["stages"][3]["state"] = "missing"
    changed_manifest(
        folder, bench="9", rewards=cards, inputs=said["inputs"], runs=said["runs"][:-1],
        stages=said["stages"],
    )  # fmt: skip
    assert [fault.removeprefix(f"{folder / MANIFEST}: ") for fault in faults(folder)] == [
        "versions of dpo-bench are not those of the protocol",
        "the prompts are not those of the protocol",
        "numbers of training pairs are not those of the protocol",
        "the rewards are not those of the protocol",
        "arms and training seeds are not those of the protocol",
        "it knows not all runs that there are scores of",
        "1 stages are missing: run the same 'bench ablate' again",
    ]


def test_images_and_pictures_are_looked_at(
    result_folder: Callable[..., Path], make_protocol: Callable[..., Protocol]
) -> None:
    """Two pictures, of which one is damaged and one is lost; and two images that are not known."""
    folder = result_folder()
    scores = pq.read_table(folder / SCORES).to_pandas()
    rows = scores.drop_duplicates(["arm", "train_seed", "prompt_id", "k"])
    images = pd.DataFrame(
        {
            "arm": rows["arm"], "seed": rows["train_seed"].astype("Int64"),
            "prompt_id": rows["prompt_id"], "prompt": "a prompt", "k": rows["k"],
            "sha256": rows["image_sha256"], "picture": None, "picture_sha256": None,
        }
    ).reset_index(drop=True)  # fmt: skip
    (folder / "pictures").mkdir()
    for n, data in enumerate((b"one", b"two", b"three")):
        place = f"pictures/{n:064x}.png"
        (folder / place).write_bytes(data)
        images.loc[n, ["picture", "picture_sha256"]] = [place, hashlib.sha256(data).hexdigest()]
    table = pa.Table.from_pandas(images[2:], schema=SCHEMA, preserve_index=False)

    def rewritten(found: pa.Table) -> list[str]:
        whole = pq.read_table(folder / SCORES)
        write_results(folder, make_protocol(), whole, None, {IMAGES: found})
        return [fault for fault in faults(folder) if MANIFEST not in fault]

    whole = pa.Table.from_pandas(images, schema=SCHEMA, preserve_index=False)
    assert rewritten(whole) == []
    assert rewritten(table) == [
        f"{folder / IMAGES}: it knows not 2 of {len(images)} images that have scores"
    ]
    (folder / f"pictures/{0:064x}.png").write_bytes(b"other")
    (folder / f"pictures/{1:064x}.png").unlink()
    first, second = rewritten(whole)
    assert f"{0:064x}.png is damaged" in first and f"{1:064x}.png" in second
    (folder / IMAGES).write_bytes(b"PAR1")
    (damage,) = [fault for fault in faults(folder) if MANIFEST not in fault]
    assert damage.startswith(f"{folder / IMAGES} is damaged")


def test_what_is_no_result_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(tmp_path)]) == 1
    assert "is no result folder and holds none" in capsys.readouterr().err
