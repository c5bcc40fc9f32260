"""One stage that is described in a store, run in this process, on whatever machine."""

import os
from pathlib import Path

from bench.launch.devices import check_device
from bench.stages.base import Report, Stage
from bench.stages.described import read_stage
from bench.stages.store import Store
from trainers.errors import UserError
from trainers.machine.leaving import leave_if_asked


def settle_libraries() -> None:
    """Let libraries be quiet, and torch compute with one thread, as every worker does."""
    import torch

    from bench.terminal import silence_libraries

    torch.set_num_threads(1)
    silence_libraries()


def run_alone(identity: str, root: Path, report: Report = lambda units: None) -> Stage:
    """Run a stage unless it is done; whoever runs it now is waited for.

    What comes from elsewhere is verified first: the description against the id, the model and the
    data against the hashes in it, and the files of what was made before against their records.

    Args:
        identity: Id of the stage, or 16 hex digits of it or more.
        root: The store.
        report: Told how many units are done.

    Raises:
        UserError: If the stage is not described, something differs, or a stage that it needs is
            not done.
        Leave: If the process was asked to leave; what was done is kept.
    """
    store = Store(root.resolve(), suspicious=True)
    stage, folder = read_stage(identity, store)
    if stage.done(store) is not None:
        return stage
    settle_libraries()
    _enter(folder)
    check_device(stage.device, stage.label)
    stage.verify_inputs()

    def told(units: int) -> None:
        report(units)
        if not stage.resumes:  # One that does leaves by itself, when it has kept what it has.
            leave_if_asked()

    stage.execute(store, told)
    return stage


def _enter(folder: Path) -> None:
    """Go to where the experiment was begun: paths of its spec may be relative to it."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be entered here ({(error.strerror or str(error)).lower()}): begin "
            "the experiment in a folder that all machines share"
        ) from error
