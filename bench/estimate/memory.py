"""What each stage of a spec would take of memory and disk."""

from collections.abc import Sequence
from math import prod

from bench.estimate.activations import Network
from bench.rewards.engine import make_reward
from bench.rewards.kit.shared import Shared
from bench.spec.model import Generate, Scoring
from trainers.backbones.base import Skeleton
from trainers.config import TrainConfig
from trainers.machine.batches import split_batch
from trainers.machine.precision import BYTES
from trainers.optimizers import Optimizer

GIB = 2**30


def training_memory(
    config: TrainConfig, network: Network, processes: int = 1, spared: bool = False
) -> dict[str, float]:
    """GiB of each part of a training process's memory.

    Policy and gradients are in float32. Autocast holds a copy of the weights in half precision.
    Activations are those that autograd keeps, counted in float32 and halved in half precision, or,
    if that is more, a block's of the images that the reference's gate measures. An objective that
    looks at no reference, or a run that is ``spared`` it by errors that were computed before, holds
    the pretrained network only where adapters lie on it. The encoders are not in memory.

    Raises:
        UserError: If the processes cannot share the batch in equal parts.
    """
    own = split_batch(config.batch_size, config.accumulation, processes)
    weights, rule, saved = config.weights, config.reference, network.saved
    shapes = weights.trained_shapes(network.shapes)
    trained = sum(map(prod, shapes))
    half, frozen = config.precision != "float32", BYTES[weights.frozen_dtype]
    runs_in, copied_in = (frozen, 4) if weights.adapter else (4, frozen)
    kept = saved.checkpointed() if config.gradient_checkpointing else saved.plain()
    held = (config.objective.referenced and not spared) or weights.adapter
    images = config.objective.images * own.rows // own.parts
    measured = rule.measured_images(config.batch_size) * saved.largest_block
    parts = {
        "policy": 4 * trained,
        "pretrained": frozen * network.parameters if held else 0,
        "reference": copied_in * trained if rule.own_network else 0,
        "half-precision copy": 2 * network.parameters if half and runs_in == 4 else 0,
        "gradients": 4 * trained,
        "optimiser": config.optimizer.state_bytes(shapes),
        "moving average": 4 * trained if config.ema is not None else 0,
        "activations": max(images * kept, measured) // (2 if half else 1),
    }
    return {name: size / GIB for name, size in parts.items()}


def guesses(config: TrainConfig) -> list[str]:
    """What of a run's memory no plug-in says, and what it is counted as."""
    optimizer = config.optimizer
    silent = type(optimizer).state_bytes is Optimizer.state_bytes
    return [f"the state of optimiser {optimizer.name!r} as AdamW's"] if silent else []


def maps_bytes(model: Skeleton, side: int, images: int, unit: int) -> int:
    """What an autoencoder holds of some images, either way, with ``unit`` bytes a number.

    Taken to be four maps of its first width at full size for each image.
    """
    return images * 4 * model.width * (side * model.factor) ** 2 * unit


def encoding_memory(
    model: Skeleton, vae: int, texts: int, side: int, images: int, precision: str
) -> float:
    """GiB to encode pairs: autoencoder and its maps in float32, text encoders in ``precision``."""
    weights = 4 * vae + BYTES[precision] * texts
    return (weights + maps_bytes(model, side, images, 4)) / GIB


def encoding_space(model: Skeleton, side: int, pairs: int, precision: str) -> float:
    """GiB on disk of the means and deviations of the latents of two images a pair."""
    return 2 * pairs * 2 * model.channels * side**2 * BYTES[precision] / GIB


def generation_memory(
    settings: Generate, model: Skeleton, network: Network, others: int, side: int
) -> float:
    """GiB to make images: all weights, and the larger of a block's and the decoder's maps."""
    unit, guided = BYTES[settings.dtype], 1 + (settings.guidance > 1)
    block = settings.batch_size * guided * network.saved.largest_block * unit // 4
    decoder = maps_bytes(model, side, settings.batch_size, unit)
    return ((network.parameters + others) * unit + max(block, decoder)) / GIB


def scoring_memory(rewards: Sequence[str], settings: Scoring) -> dict[str, float]:
    """GiB of the weights of each reward, in the precision that it would have."""
    return {name: make_reward(name, settings, Shared()).memory / GIB for name in rewards}
