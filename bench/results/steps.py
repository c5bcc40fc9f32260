"""What every training step measured, ``steps.parquet``, and how it was scaled, ``scales.parquet``.

From the logs of the runs, one row for each arm, seed and step, in the columns of
:mod:`trainers.steps`. A scale has a row for each arm and each of some timesteps, from the cleanest
to the noisiest.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from bench.results.files import SCALES, STEPS, damaged, read_data
from trainers.steps import DECILES, EVENT, FIGURES, SCALARS

SCALES_SCHEMA = pa.schema(
    {"arm": pa.string(), "timestep": pa.int64(), "snr": pa.float64(), "scale": pa.float64()}
)
"""``snr`` is the signal-to-noise ratio there, ``scale`` lambda, the factor on beta."""
NUMBER, TEN = pa.float64(), pa.list_(pa.float32(), 10)
"""Columns of ten are most of the table, and are drawn only: seven digits halve it."""


def steps_schema(figures: list[str]) -> pa.Schema:
    """Columns of the table, with those of further ``figures`` of the log at the end."""
    kinds = {"arm": pa.string(), "seed": pa.int64(), "step": pa.int64(), EVENT: pa.string()}
    return pa.schema(
        [
            *kinds.items(),
            *((name, NUMBER) for name in SCALARS),
            *((name, TEN) for name in DECILES),
            *((FIGURES + name, NUMBER) for name in figures),
        ]
    )


def read_steps(folder: Path) -> pd.DataFrame | None:
    """The steps of a result folder, columns of ten as arrays; None where it has none.

    Raises:
        UserError: If they, or the protocol, are missing or damaged.
    """
    table = read_data(folder, STEPS)
    if table is None:
        return None
    further = [n.removeprefix(FIGURES) for n in table.column_names if n.startswith(FIGURES)]
    if table.schema != steps_schema(further):
        raise damaged(folder / STEPS, "not the columns of steps")
    steps: pd.DataFrame = table.to_pandas()
    return steps


def read_scales(folder: Path) -> pd.DataFrame | None:
    """The reward scales of a result folder, in the columns of ``SCALES_SCHEMA``; None without any.

    Raises:
        UserError: As :func:`read_steps`.
    """
    table = read_data(folder, SCALES)
    if table is None:
        return None
    if table.schema != SCALES_SCHEMA:
        raise damaged(folder / SCALES, "not the columns of scales")
    scales: pd.DataFrame = table.to_pandas()
    return scales
