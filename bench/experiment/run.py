"""The main job: run what is missing of an experiment, and write its results."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
from rich.console import Console

from bench.experiment.collect import collect, make_manifest, make_protocol
from bench.experiment.devices import check_devices, devices, gpu_shares
from bench.experiment.folder import STORE, check_folder, up_to_date
from bench.experiment.logs import collect_scales, collect_steps
from bench.experiment.models import check_model
from bench.experiment.pictures import clear_pictures, collect_images
from bench.experiment.prepare import Experiment
from bench.experiment.sharing import share
from bench.launch.base import Executor
from bench.launch.graph import Outcome
from bench.launch.local import Local
from bench.launch.progress import display
from bench.launch.run import run_stages
from bench.results.files import IMAGES, SCALES, STEPS, read_data, write_results
from bench.spec.model import Spec
from bench.stages.base import Stage
from bench.stages.score import ScoreStage, unscored
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.files import writable_folder

Where = Literal["local", "slurm", "ray"]
Check = Callable[[Sequence[Stage], Store], None]
"""May refuse stages that are to be run in a store."""


def missing_stages(experiment: Experiment, store: Store) -> list[Stage]:
    """Stages that have to run, each after those it needs.

    What a finished stage was made from is not made again: encodings and networks may be cleared
    away once the images they led to are there. Where runs have errors of the pretrained network in
    common, a stage that computes them comes before them, which is none of the experiment's own.
    """
    wanted: dict[str, Stage] = {}

    def want(stage: Stage) -> None:
        if stage.id in wanted or stage.done(store) is not None:
            return
        for need in stage.needs:
            want(need)
        wanted[stage.id] = stage

    for stage in experiment.stages():
        if isinstance(stage, ScoreStage):
            want(stage)
    return sorted(share([*wanted.values()], store), key=lambda stage: stage.order)


def ablate(
    experiment: Experiment,
    out: Path,
    workers: int,
    console: Console,
    check: Check = lambda stages, store: None,
    launch: Where = "local",
) -> tuple[Path, Outcome]:
    """Run an experiment below ``out`` and write its results to ``out/<name>``, tables aside.

    Args:
        experiment: What is run, where it is missing.
        out: Folder of store and results.
        workers: Processes of this machine.
        console: Where progress is shown.
        check: Called with the stages that are missing before any of them runs.
        launch: What runs them.

    Returns:
        That folder, and what ran.

    Raises:
        UserError: If the folder holds results of another spec or cannot be written into, the store
            is damaged, or nothing at all could be scored.
    """
    check_folder(out / experiment.spec.name, experiment)
    writable_folder(out / experiment.spec.name)
    store = Store(writable_folder(out / STORE))
    todo = missing_stages(experiment, store)
    outcome = Outcome()
    if todo:
        check(todo, store)
        if launch == "local":  # What jobs find on their machines is looked at there.
            check_devices(experiment.spec)
        check_model(experiment.spec, todo)
        with display(console, todo, experiment.spec.cost, workers) as shown:
            executor = _executor(launch, experiment.spec, store, workers)
            outcome = run_stages(todo, store, executor, shown)
    return _write(experiment, out, store, anew=bool(todo)), outcome


def _executor(launch: Where, spec: Spec, store: Store, workers: int) -> Executor:
    if launch == "slurm":
        from bench.launch.slurm import SlurmJobs

        return SlurmJobs(store, spec.launch.slurm)
    if launch == "ray":
        from bench.launch.ray import RayTasks

        return RayTasks(store, spec.launch.ray)
    return Local(store, workers, gpu_shares(spec))


def collect_done(experiment: Experiment, out: Path) -> tuple[Path, list[Stage]]:
    """Write the results of what is done so far, tables aside; run nothing.

    Returns:
        Their folder, and the stages that are missing.

    Raises:
        UserError: As :func:`ablate`.
    """
    store = Store(out / STORE)
    folder = _write(experiment, out, store, anew=False)
    return folder, missing_stages(experiment, store)


def _write(experiment: Experiment, out: Path, store: Store, anew: bool) -> Path:
    """Write what a result folder holds; the manifest ``anew``, or where it lacks something."""
    folder = out / experiment.spec.name
    check_folder(folder, experiment)  # Another run may have written since this one began.
    scores = collect(experiment, store)
    stale = anew or not up_to_date(folder, experiment, store)
    manifest = make_manifest(experiment, store) if stale else None
    steps = collect_steps(experiment, store, _steps_before(folder))
    images = collect_images(experiment, store, scores, folder)
    more = {IMAGES: images, SCALES: collect_scales(experiment)}
    if steps is not None:
        more[STEPS] = steps
    write_results(folder, make_protocol(experiment), scores, manifest, more)
    clear_pictures(folder, images)
    return folder


def _steps_before(folder: Path) -> pa.Table | None:
    """Steps of results that are there already, if they are whole."""
    try:
        return read_data(folder, STEPS)
    except UserError:
        return None


def unscored_images(experiment: Experiment, store: Store) -> list[str]:
    """A line for each image that has no score though its stage is done."""
    stages = {s.id: s for s in experiment.stages() if isinstance(s, ScoreStage)}
    done = (stage for stage in stages.values() if stage.done(store) is not None)
    return [line for stage in done for line in unscored(stage, store)]


def default_workers(spec: Spec) -> int:
    """One for each GPU, or for as many as a run needs, where the spec asks for any.

    Else cores that this process may use; one where runs have several processes, or a device that is
    no GPU to be handed out.
    """
    if found := gpu_shares(spec):
        return len(found)
    if spec.training.processes > 1 or any(device != "cpu" for _, device in devices(spec)):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
