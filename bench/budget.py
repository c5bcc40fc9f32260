"""What an experiment would take, computed from its settings: memory, operations, GPU-hours."""

from dataclasses import dataclass
from math import prod
from typing import Any

from bench.architectures import Architecture
from bench.measure import Cost
from trainers.config import TrainConfig

GIB = 2**30
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Parameters and operations per image of known rewards. Operations are twice the parameters of a
# tower times its tokens: 257 for an image of 224 pixels cut into 14, 77 for a text.
_CLIP_H = (986_000_000, 2 * (632_000_000 * 257 + 302_000_000 * 77))
_CLIP_L = (428_000_000, 2 * (304_000_000 * 257 + 85_000_000 * 77))
REWARDS: dict[str, tuple[int, int]] = {
    "pickscore": _CLIP_H,
    "hpsv2.0": _CLIP_H,
    "hpsv2.1": _CLIP_H,
    "clip-h14": _CLIP_H,
    "clip": _CLIP_L,
    "aesthetic": (304_000_000, 2 * 304_000_000 * 257),
    "imagereward": (446_000_000, 2 * (304_000_000 * 197 + 137_000_000 * 35)),
}


@dataclass(frozen=True)
class Training:
    """What of a run's settings decides its memory and its operations."""

    precision: str
    checkpointing: bool
    optimizer: str
    weights: str
    frozen_dtype: str
    rank: int
    targets: tuple[str, ...]
    average: bool
    follows: bool
    """Whether the reference is updated, and so a copy of its own."""
    gate: float
    """Images that the divergence is measured on, per step."""
    images: int
    """Images in one part of the batch."""


def training_of(config: TrainConfig) -> Training:
    """Read a run's settings."""
    dump: dict[str, Any] = config.model_dump(mode="json")
    weights, rule = dump.get("weights", {"name": "full"}), dump["reference"]
    follows = rule["name"] != "frozen"
    measured = follows and (rule["delta"] is not None or rule["monitor"])
    return Training(
        precision=dump.get("precision", "float32"),
        checkpointing=bool(getattr(config, "gradient_checkpointing", False)),
        optimizer=dump["optimizer"].get("name", "adamw"),
        weights=weights["name"],
        frozen_dtype=weights.get("frozen_dtype", "float32"),
        rank=weights.get("rank", 0),
        targets=tuple(weights.get("targets", ())),
        average=dump.get("ema") is not None,
        follows=follows,
        gate=min(rule["subset"], config.batch_size) / rule["tau"] if measured else 0.0,
        images=2 * config.batch_size // config.accumulation,
    )


def trained_shapes(run: Training, cost: Cost) -> list[tuple[int, ...]]:
    """Shapes of the weights that are trained: all, or two factors for every target of LoRA."""
    if run.weights != "lora":
        return [shape for _, shape in cost.shapes]
    found: list[tuple[int, ...]] = []
    for name, shape in cost.shapes:
        layer = name.removesuffix(".weight")
        if layer != name and any(f".{layer}".endswith(f".{target}") for target in run.targets):
            found += [(run.rank, prod(shape[1:])), (shape[0], run.rank)]
    return found


def training_memory(run: Training, cost: Cost) -> dict[str, float]:
    """GiB of each part of a training process's memory.

    Policy, gradients and optimiser state in float32; AdamW keeps two values a weight, its 8-bit
    form two bytes, Adafactor the row and column means of a matrix. Autocast holds a copy of the
    weights in half precision. Activations are those that autograd keeps, counted on the meta
    device in float32 and halved in half precision; the encoders are not in memory.
    """
    shapes = trained_shapes(run, cost)
    trained = sum(prod(shape) for shape in shapes)
    half, lora = run.precision != "float32", run.weights == "lora"
    frozen = BYTES[run.frozen_dtype]
    kept = cost.saved.checkpointed() if run.checkpointing else cost.saved.plain()
    cast = (0 if lora and frozen == 2 else cost.parameters) if half else 0
    parts = {
        "policy": 4 * trained,
        "pretrained": frozen * cost.parameters,
        "reference": (4 * trained if lora else frozen * cost.parameters) if run.follows else 0,
        "half-precision copy": 2 * cast,
        "gradients": 4 * trained,
        "optimiser": optimizer_bytes(run.optimizer, shapes),
        "moving average": 4 * trained if run.average else 0,
        "activations": run.images * kept // (2 if half else 1),
    }
    return {name: size / GIB for name, size in parts.items()}


def optimizer_bytes(name: str, shapes: list[tuple[int, ...]]) -> int:
    """State of an optimiser, in bytes; that of an unknown one counts as AdamW's."""
    if name == "adafactor":
        return 4 * sum(
            prod(s[:-1]) + prod((*s[:-2], s[-1])) if len(s) > 1 else prod(s) for s in shapes
        )
    return (2 if name == "adamw-8bit" else 8) * sum(prod(shape) for shape in shapes)


def step_flops(run: Training, cost: Cost, pairs: int) -> float:
    """Operations of an optimiser step.

    Policy and reference see both images. A backward pass costs two forward passes, or one where
    frozen weights need no gradient, and one more with gradient checkpointing. The gate runs two
    networks on its subset.
    """
    backward = (1 if run.weights == "lora" else 2) + run.checkpointing
    return cost.forward_flops * (2 * pairs * (1 + backward + 1) + 2 * run.gate)


@dataclass(frozen=True)
class Sampling:
    """What of a spec decides the cost of its images."""

    steps: int
    guided: bool
    batch_size: int
    dtype: str


def generation_memory(
    sampling: Sampling, model: Architecture, cost: Cost, others: int, side: int
) -> float:
    """GiB to make images: all weights, and the larger of a block's and the decoder's maps.

    The decoder is taken to hold four maps of its first width at full size for each image.
    """
    unit = BYTES[sampling.dtype]
    network = sampling.batch_size * (1 + sampling.guided) * cost.saved.largest_block * unit // 4
    maps = 4 * model.vae["block_out_channels"][0] * (side * model.factor) ** 2
    decoder = sampling.batch_size * maps * unit
    return float((cost.parameters + others) * unit + max(network, decoder)) / GIB


def image_flops(sampling: Sampling, cost: Cost, decode: int) -> int:
    """Operations to make one image; guidance runs the network twice a step."""
    return sampling.steps * (1 + sampling.guided) * cost.forward_flops + decode
