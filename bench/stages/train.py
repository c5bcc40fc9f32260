"""The work of the stage that trains a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.launch.ranks import run_ranks
from bench.stages.encode import open_pairs
from bench.stages.store import Store
from trainers.backbones import BACKBONES
from trainers.core import OnStep, Trainer
from trainers.machine.processes import joined, launched

if TYPE_CHECKING:
    from bench.stages.kinds import TrainStage


def train(stage: "TrainStage", folder: Path, store: Store, on_step: OnStep) -> None:
    """Train into ``folder``, from where an interrupted attempt stopped.

    A process that a launcher has started, such as ``accelerate launch``, trains together with the
    others of that launch; else processes are started if the stage asks for several.
    """
    if stage.training.processes > 1 and launched() == 1:
        run_ranks(stage, folder, store, on_step)
    else:
        train_here(stage, folder, store, on_step)


def train_here(stage: "TrainStage", folder: Path, store: Store, on_step: OnStep) -> None:
    """Train in this process, beside others if there are any."""
    config = stage.config
    with joined(stage.training.device, config.precision) as processes:
        backbone = BACKBONES.get(config.backbone)(stage.base, processes.device)
        data = open_pairs(stage.latents, store, backbone, config.data)
        Trainer(config, backbone, data, processes).run(
            folder, on_step, stage.training.checkpoint_every
        )
