"""The work of the stage that trains a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.encode import open_pairs
from bench.store import Store
from trainers.backbones import BACKBONES
from trainers.core import OnStep, Trainer

if TYPE_CHECKING:
    from bench.stages import TrainStage


def train(stage: "TrainStage", folder: Path, store: Store, on_step: OnStep) -> None:
    """Train into ``folder``, from where an interrupted attempt stopped."""
    device = stage.training.device
    backbone = BACKBONES.get(stage.config.backbone)(stage.base, device)
    data = open_pairs(stage.latents, store, backbone, stage.config.data)
    Trainer(stage.config, backbone, data, device).run(folder, on_step)
