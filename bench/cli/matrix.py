"""What ``bench ablate`` does without running anything: with the trials of a spec, if it has any."""

from pathlib import Path

from bench.api import Experiment, Finished, prepare
from bench.experiment import run as job
from bench.experiment.folder import STORE
from bench.experiment.show import print_plan
from bench.experiment.tuning import choose
from bench.report.folder import render
from bench.spec.tuning import trials_spec
from bench.stages.store import Store


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
