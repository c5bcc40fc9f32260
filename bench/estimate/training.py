"""What training would take, computed from its settings: memory and operations."""

from dataclasses import dataclass
from math import prod

from bench.estimate.network import Cost
from trainers.config import TrainConfig
from trainers.machine.batches import split_batch
from trainers.machine.precision import BYTES
from trainers.references.updating import Updating
from trainers.weights.lora import LoRA

GIB = 2**30
OPTIMIZERS = ("adamw", "adamw-8bit", "adafactor")
WEIGHTS = ("full", "lora")
"""What is known here; a plan says what any other counts as."""


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
    """Images in one forward pass."""
    measured: int = 0
    """Images that the divergence is measured on, at once."""


def training_of(config: TrainConfig, processes: int = 1) -> Training:
    """Read a run's settings, for each of some processes.

    Raises:
        UserError: If they cannot share its batch in equal parts.
    """
    own = split_batch(config.batch_size, config.accumulation, processes)
    weights, rule = config.weights, config.reference
    lora = weights if isinstance(weights, LoRA) else None
    measured, tau = 0, 1
    if isinstance(rule, Updating) and (rule.delta is not None or rule.monitor):
        measured, tau = min(rule.subset, config.batch_size), rule.tau
    return Training(
        precision=config.precision,
        checkpointing=config.gradient_checkpointing,
        optimizer=config.optimizer.name,
        weights=weights.name,
        frozen_dtype=weights.frozen_dtype,
        rank=lora.rank if lora else 0,
        targets=lora.targets if lora else (),
        average=config.ema is not None,
        follows=rule.name != "frozen",
        gate=measured / tau,
        images=2 * own.rows // own.parts,
        measured=measured,
    )


def guesses(run: Training) -> list[str]:
    """What of a run is not known here, and what it is counted as."""
    found = []
    if run.optimizer not in OPTIMIZERS:
        found.append(f"the state of optimiser {run.optimizer!r} as AdamW's")
    if run.weights not in WEIGHTS:
        found.append(f"weights {run.weights!r} as full")
    return found


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
    device in float32 and halved in half precision, or, if that is more, a block's of the images
    that the divergence is measured on. The encoders are not in memory.
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
        "activations": max(run.images * kept, run.measured * cost.saved.largest_block)
        // (2 if half else 1),
    }
    return {name: size / GIB for name, size in parts.items()}


def optimizer_bytes(name: str, shapes: list[tuple[int, ...]]) -> int:
    """State of an optimiser, in bytes; that of one not in ``OPTIMIZERS`` counts as AdamW's."""
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
