"""What stages will at least write to a disk, against what is free there."""

import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path

from bench.assets import model_folder
from bench.estimate.memory import GIB, encoding_space
from bench.spec.model import Spec
from bench.stages.base import Stage
from bench.stages.encode import EncodeStage
from bench.stages.generate import GenerateStage
from bench.stages.reference import ReferenceStage
from bench.stages.store import CACHE, Store
from bench.stages.train import TrainStage
from trainers.backbones import BACKBONES
from trainers.backbones.base import Skeleton
from trainers.config import TrainConfig
from trainers.errors import UserError

PNG = 0.25
"""Bytes of a PNG file for each of its pixels, at the least: a picture takes 1 to 2."""


def check_space(spec: Spec, stages: Sequence[Stage], store: Store) -> None:
    """Refuse work that clearly does not fit on the disk, before it begins.

    Args:
        spec: The experiment.
        stages: What is to be run of it.
        store: Where; its folder is there.

    Raises:
        UserError: If the least that they write, less what of it is there already, is more than is
            free.
    """
    try:
        model = BACKBONES.get(spec.backbone).skeleton(spec.base, model_folder(spec.base))
    except UserError:  # A backbone that does not say what its models are made of.
        return
    parts = least_bytes(spec, stages, model)
    shared = (store.root / CACHE, store.pool(""))
    there = sum(map(_size, (*shared, *(stage.output(store) for stage in stages))))
    needed, free = sum(parts.values()) - there, shutil.disk_usage(store.root).free
    if needed > free:
        told = ", ".join(f"{size / GIB:.3g} of {name}" for name, size in parts.items() if size)
        raise UserError(
            f"{store.root}: expected {needed / GIB:.3g} GiB of free space for what is to be made "
            f"({told}), got {free / GIB:.3g}: free space, choose another --out, or make less"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def least_bytes(spec: Spec, stages: Sequence[Stage], model: Skeleton) -> dict[str, float]:
    """Bytes that stages write at the least, by what they are of."""
    kinds = ("encodings", "reference errors", "networks", "checkpoints", "images")
    parts = dict.fromkeys(kinds, 0.0)
    shapes = {name: tuple(p.shape) for name, p in model.network.named_parameters()}
    checkpoints = [0.0]
    for stage in stages:
        if isinstance(stage, EncodeStage) and stage.encoding.cache:
            data = stage.settings
            side = data.resolution // model.factor if data.resolution else model.side
            space = encoding_space(model, side, stage.pairs, data.precision)
            parts["encodings"] = max(parts["encodings"], space * GIB)  # They share them.
        elif isinstance(stage, ReferenceStage):
            size = 4 * stage.config.objective.images * stage.positions
            parts["reference errors"] += 2 * size  # And in the pool.
        elif isinstance(stage, TrainStage):
            network, checkpoint = _run_bytes(stage.config, shapes)
            parts["networks"] += network
            checkpoints.append(checkpoint)
        elif isinstance(stage, GenerateStage):
            made, default = stage.settings, model.side * model.factor
            pixels = (made.height or default) * (made.width or default)
            parts["images"] += stage.units * pixels * PNG
    parts["checkpoints"] = sum(checkpoints) if spec.training.keep_checkpoint else max(checkpoints)
    return parts


def _run_bytes(config: TrainConfig, shapes: dict[str, tuple[int, ...]]) -> tuple[float, float]:
    """Bytes of what a run leaves, and of a checkpoint: weights, average and optimiser."""
    trained = config.weights.trained_shapes(shapes)
    network = 4 * sum(map(prod, trained))
    averages = 1 if config.ema is None else 2
    return network, averages * network + config.optimizer.state_bytes(trained)
