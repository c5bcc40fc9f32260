"""What the commands do, for scripts and notebooks; ``docs/api.md`` shows how.

A script that calls :func:`run` does so below ``if __name__ == "__main__":``, because its workers
are processes that import it.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from bench.estimate.disk import check_space
from bench.experiment import run as job
from bench.experiment.folder import STORE
from bench.experiment.prepare import Experiment, prepare
from bench.experiment.show import print_plan
from bench.experiment.tuning import choose
from bench.report.folder import render
from bench.report.tables import figures
from bench.results.analysis import Results
from bench.results.files import read_results, read_scores
from bench.results.pictures import read_images
from bench.results.steps import read_steps
from bench.spec.model import load_spec
from bench.spec.tuning import trials_spec
from bench.stages.store import Store
from bench.terminal import plain_console

__all__ = [
    "load_spec",
    "prepare",
    "run",
    "read_results",
    "comparisons",
    "read_scores",
    "read_steps",
    "read_images",
    "Experiment",
    "Finished",
    "Results",
]


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    folder: Path
    """The result folder, tables included."""
    results: Results
    gaps: tuple[str, ...]
    """A line for each stage that failed and each image without a score; empty if all is there."""


def run(
    experiment: Experiment,
    out: Path | str = "runs",
    workers: int | None = None,
    launch: job.Where = "local",
) -> Finished:
    """Run what is missing of an experiment, and write its result folder, as ``bench ablate`` does.

    A spec with a ``tuning`` section has its trials run first, and the arms that they tune with the
    experiment. Progress goes to standard error.

    Args:
        experiment: As :func:`prepare` gives it.
        out: Folder of the store and the results.
        workers: Processes; None for one on each core, or one where work goes to a GPU.
        launch: What runs the stages: ``local``, ``slurm`` or ``ray``.

    Raises:
        UserError: As :func:`bench.experiment.run.ablate`.
    """
    out = Path(out)
    # Read by transformers when it is imported; workers inherit it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    tried: tuple[str, ...] = ()
    if experiment.tuning is None and (trials := _trials(experiment)) is not None:
        made = run(trials, out, workers, launch)
        experiment, tried = _tuned(experiment, made.folder), made.gaps
    folder, outcome = job.ablate(
        experiment,
        out,
        workers or job.default_workers(experiment.spec),
        plain_console(stderr=True),
        partial(check_space, experiment.spec),
        launch,
    )
    failed = [f"failed: {error}" for error in outcome.failed.values()]
    unscored = job.unscored_images(experiment, Store(out / STORE))
    return Finished(folder, render(folder), (*tried, *failed, *unscored))


def show(experiment: Experiment, out: Path, workers: int, as_json: bool) -> None:
    """Print what would run; arms are tuned once all trials are made."""
    trials = _trials(experiment)
    if trials is not None and not job.missing_stages(trials, Store(out / STORE)):
        experiment = _tuned(experiment, job.collect_done(trials, out)[0])
    print_plan(experiment, out, workers, as_json, trials)


def collected(experiment: Experiment, out: Path) -> Finished:
    """Write the results of what is done so far, tables included."""
    gaps: tuple[str, ...] = ()
    if (trials := _trials(experiment)) is not None:
        tried = _collected(trials, out)
        experiment, gaps = _tuned(experiment, tried.folder), tried.gaps
    done = _collected(experiment, out)
    return Finished(done.folder, done.results, (*gaps, *done.gaps))


def _trials(experiment: Experiment) -> Experiment | None:
    if experiment.spec.tuning is None:
        return None
    with experiment.spec.named():
        return prepare(trials_spec(experiment.spec))


def _tuned(experiment: Experiment, folder: Path) -> Experiment:
    with experiment.spec.named():
        return prepare(experiment.spec, choose(experiment.spec, folder))


def _collected(experiment: Experiment, out: Path) -> Finished:
    folder, missing = job.collect_done(experiment, out)
    told = [f"{len(missing)} stages are missing: run it without --collect"] if missing else []
    unscored = job.unscored_images(experiment, Store(out / STORE))
    return Finished(folder, render(folder), (*told, *unscored))


def comparisons(results: Results) -> pd.DataFrame:
    """Every figure of every comparison and reward, a row for each, columns as in ``table.csv``."""
    table = figures(results)
    return pd.DataFrame(
        [[cell.value for cell in row] for row in table.rows],
        columns=[cell.text for cell in table.columns],
    )
