"""Whether a result folder is what it says it is: what who contributes a row runs, and who reads it.

What is not looked at: whether the images exist, and whether the scores are true. For that the
experiment is run again, which the manifest says how to do.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from bench.report.folder import rendered
from bench.results.analysis import Results, analyse
from bench.results.files import (
    COLUMNS,
    IMAGES,
    INTEGERS,
    MANIFEST,
    SCORES,
    read_columns,
    read_manifest,
    read_scores,
)
from bench.results.manifest import Manifest
from bench.results.pictures import read_images, read_picture
from bench.results.protocol import Protocol
from bench.results.steps import read_scales, read_steps
from bench.stats import MAX_MISSING_SHARE
from trainers.errors import UserError
from trainers.input.paths import is_regular

KEY = ["reward", "arm", "train_seed", "prompt_id", "k"]
"""Columns of which no two scores have the same values."""


def faults(folder: Path) -> list[str]:
    """A line for each fault of a result folder; none if it is whole."""
    try:
        scores, protocol = read_scores(folder)
    except UserError as error:
        return [str(error)]
    results = analyse(scores, protocol)
    found = [
        *_of_scores(folder, scores, results), *_of_data(folder), *_of_tables(folder, results),
    ]  # fmt: skip
    try:
        manifest = read_manifest(folder)
    except UserError as error:
        return [*found, str(error)]
    return [*found, *_of_manifest(folder / MANIFEST, manifest, scores, protocol)]


def _of_scores(folder: Path, scores: pd.DataFrame, results: Results) -> Iterator[str]:
    path = folder / SCORES
    names = pq.read_schema(path).names
    if names != [*COLUMNS]:
        yield f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(names)}"
    if twice := int(scores.duplicated(KEY).sum()):
        yield f"{path}: {twice} scores are of an image that has one by the same reward already"
    for reward, missing in results.missing.items():
        if missing > MAX_MISSING_SHARE * results.expected:
            yield (
                f"{path}: {missing} of {results.expected} scores of {reward} are missing, more "
                f"than {MAX_MISSING_SHARE:.0%}: run the same 'bench ablate' again"
            )
    if "image_sha256" in names:
        keys = [name for name in KEY if name != "reward"]
        images = pq.read_table(path, columns=[*keys, "image_sha256"]).to_pandas()
        several = images.drop_duplicates().duplicated(keys)
        if count := int(several.sum()):
            yield f"{path}: {count} images have another sha256 by one reward than by another"


def _of_data(folder: Path) -> Iterator[str]:
    """Steps, scales, images and pictures, where the protocol knows of any."""
    for read in (read_steps, read_scales):
        try:
            read(folder)
        except UserError as error:
            yield str(error)
    try:
        images = read_images(folder)
    except UserError as error:
        yield str(error)
        return
    if images is None:
        return
    shown = images.dropna(subset=["picture"]).drop_duplicates("picture")
    for picture, sha256 in zip(shown["picture"], shown["picture_sha256"], strict=True):
        try:
            read_picture(folder, picture, sha256)
        except UserError as error:
            yield str(error)
    names = ["arm", "train_seed", "prompt_id", "k", "image_sha256"]
    scored = read_columns(folder, names)[1].to_pandas(types_mapper=INTEGERS.get).drop_duplicates()
    known = images.rename(columns={"seed": "train_seed", "sha256": "image_sha256"})
    if lost := len(scored) - len(scored.merge(known, on=names)):
        yield f"{folder / IMAGES}: it knows not {lost} of {len(scored)} images that have scores"


def _of_tables(folder: Path, results: Results) -> Iterator[str]:
    for name, text in rendered(results).items():
        if not is_regular(folder / name):
            yield f"{folder / name}: missing: run 'bench table {folder}'"
        elif (folder / name).read_bytes() != text.encode():
            yield f"{folder / name}: not what the scores give: run 'bench table {folder}'"


def _of_manifest(
    path: Path, manifest: Manifest, scores: pd.DataFrame, protocol: Protocol
) -> Iterator[str]:
    """What manifest, protocol and scores contradict each other in."""
    base, *trained = protocol.arms
    inputs, prompts, pairs = manifest.inputs, protocol.prompts, protocol.pairs
    runs = scores[scores["train_seed"].notna() & scores["arm"].isin([a.name for a in trained])]
    made = runs[["arm", "train_seed", "run_id"]].drop_duplicates()
    first = scores[scores["arm"] == base.name]["run_id"]
    for what, here, there in (
        ("versions of dpo-bench", manifest.bench, protocol.bench),
        ("the prompts", (inputs.prompts.sha256, inputs.prompts.n),
         (prompts.sha256, len(prompts.ids))),
        ("numbers of training pairs", (inputs.pairs.kept, inputs.pairs.ties),
         (pairs.kept, pairs.ties)),
        ("the rewards", {name: card.get("signature") for name, card in manifest.rewards.items()},
         {reward.name: reward.signature for reward in protocol.rewards}),
        ("arms and training seeds", {(run.arm, run.seed) for run in manifest.runs},
         {(arm.name, seed) for arm in trained for seed in arm.seeds}),
    ):  # fmt: skip
        if here != there:
            yield f"{path}: {what} are not those of the protocol"
    if not {*made.itertuples(index=False, name=None)} <= {
        (run.arm, run.seed, run.run_id) for run in manifest.runs
    }:
        yield f"{path}: it knows not all runs that there are scores of"
    if {*first.unique().tolist()} - {inputs.base.sha256}:
        yield f"{path}: the base model is not the one that there are scores of"
    if lacking := sum(stage.state == "missing" for stage in manifest.stages):
        yield f"{path}: {lacking} stages are missing: run the same 'bench ablate' again"
