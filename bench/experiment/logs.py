"""What the training runs of an experiment logged, and the scales they used, as tables."""

import json
from collections.abc import Iterator
from math import ceil
from typing import Any

import pyarrow as pa

from bench.experiment.prepare import Experiment, ImageSet
from bench.results.steps import SCALES_SCHEMA, steps_schema
from bench.stages.store import Store
from trainers.backbones import BACKBONES
from trainers.record import METRICS
from trainers.steps import FIGURES, columns_of_step

MOST = 100_000
"""Rows of the table, about: of longer experiments every n-th step is kept."""

POINTS = 101
"""Timesteps at which a scale is told, at most."""


def collect_scales(experiment: Experiment) -> pa.Table:
    """The reward scale of every arm at ``POINTS`` timesteps of its model."""
    images = experiment.sets[0].images
    snr = BACKBONES.get(images.backbone)(images.base).snr
    count = min(POINTS, len(snr))
    places = [n * (len(snr) - 1) // max(1, count - 1) for n in range(count)]
    ratios = snr[places].tolist()
    parts = []
    for arm in experiment.matrix.arms:
        scale = next(iter(arm.configs.values())).timesteps.scale.factors(snr)[places].tolist()
        parts.append(pa.table([[arm.name] * count, places, ratios, scale], schema=SCALES_SCHEMA))
    return pa.concat_tables(parts)


def collect_steps(experiment: Experiment, store: Store, before: pa.Table | None) -> pa.Table | None:
    """The steps of all runs that are done, one row for each arm, seed and step; None without any.

    Args:
        experiment: What was run.
        store: Where the logs are.
        before: The table of a result folder of the same experiment: runs whose logs have been
            cleared away since keep the rows that they have there.
    """
    trained = [entry for entry in experiment.sets if entry.images.train is not None]
    total = sum(train.units for entry in trained if (train := entry.images.train))
    every = max(1, ceil(total / MOST))
    runs = {(entry.arm, entry.seed): [*_lines(entry, store, every)] for entry in trained}
    figures = {name for lines in runs.values() for line in lines for name in line["figures"]}
    kept = [] if before is None else before.select(["arm", "seed"]).to_pylist()
    lost = [not runs.get((row["arm"], row["seed"]), True) for row in kept]
    old = before.filter(pa.array(lost, pa.bool_())) if before is not None and any(lost) else None
    if old is not None:
        figures |= {n.removeprefix(FIGURES) for n in old.column_names if n.startswith(FIGURES)}
    schema = steps_schema(sorted(figures))
    rows = (
        {"arm": arm, "seed": seed, "step": line["step"], **columns_of_step(line)}
        for (arm, seed), lines in runs.items()
        for line in lines
    )
    table = pa.Table.from_pylist([*rows], schema)
    if old is not None:
        table = pa.concat_tables([table, _widened(old, schema)])
    return table if len(table) else None


def _lines(entry: ImageSet, store: Store, every: int) -> Iterator[dict[str, Any]]:
    """Lines of the log of a run: those of every n-th step, the last, and what the reference did."""
    train = entry.images.train
    if train is None or train.done(store) is None:
        return
    with (train.output(store) / METRICS).open(encoding="utf-8") as lines:
        for text in lines:
            line = json.loads(text)
            acted = line["reference_action"] != "none" or line["divergence"] is not None
            if line["step"] % every == 0 or line["step"] == train.units or acted:
                yield line


def _widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with null in the columns that it lacks of a schema."""
    there = {*table.column_names}
    return pa.table(
        [
            table[field.name] if field.name in there else pa.nulls(len(table), field.type)
            for field in schema
        ],
        schema=schema,
    )
