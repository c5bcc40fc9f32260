"""Errors of the pretrained network at places in the stream, computed once for several runs.

Draws belong to positions. So while a reference is the pretrained network, its error at a position
is the same number in every run that shows it the same images there: to the bit, where as many of
them go through it at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trainers.backbones import Backbone
from trainers.config import TrainConfig
from trainers.data.base import PairData
from trainers.examples import Examples
from trainers.files import canonical_json
from trainers.machine.batches import BatchSplit, split_batch
from trainers.machine.execution import configure_network
from trainers.machine.processes import Processes
from trainers.noising.forward import Forward
from trainers.streams import Stream

OF_ONE_RUN = (
    "objective", "reference", "safeguard", "optimizer", "ema",
    "steps", "batch_size", "accumulation",
)  # fmt: skip
"""Fields of a run by which the pretrained network is shown nothing else at a position."""


def known_positions(config: TrainConfig) -> int:
    """How many positions, from the first, a run may take the errors of its reference from a store.

    Those where the reference is the pretrained network and is looked at for its errors alone, on
    inputs that do not depend on the policy. None of runs that compile: how a network is compiled
    may depend on what else ran.
    """
    objective = config.objective
    more = objective.predictions or objective.mismatched or config.noising.name != Forward.name
    if not objective.referenced or more or config.compile:
        return 0
    rule = config.reference
    if rule.own_network and config.weights.adapter:
        return 0  # It runs through an adapter, if one that adds nothing.
    return rule.unmoved_steps(config.steps) * config.batch_size


def spares_network(config: TrainConfig, known: int) -> bool:
    """Whether errors at the first ``known`` positions are all it needs a pretrained network for."""
    positions = min(known, known_positions(config))
    return not config.reference.own_network and positions == config.steps * config.batch_size


def shared_key(config: TrainConfig, split: BatchSplit, device: str) -> dict[str, Any]:
    """All that decides the errors of a position, to the bit: runs that agree in it share them.

    What is not known to change nothing enters: a further setting is told apart until it is named
    in ``OF_ONE_RUN``.

    Args:
        config: The run.
        split: How a process cuts its batches: as many rows go through a network at a time.
        device: What it runs on, of which the kind counts.
    """
    key = config.model_dump(mode="json", exclude=set(OF_ONE_RUN))
    objective = config.objective
    shown = {"images": objective.images, "winners": objective.winners}
    return key | {
        "timesteps": key["timesteps"]["law"],
        "objective": {**shown, "prefixes": objective.prefixes},
        "rows": split.rows // split.parts,
        "device": device.partition(":")[0],
    }


def alike(
    configs: Iterable[TrainConfig], processes: int, device: str
) -> list[tuple[TrainConfig, ...]]:
    """Runs that can have errors in common, in groups of one :func:`shared_key`.

    Args:
        configs: Different runs.
        processes: As many train each of them.
        device: What they run on.
    """
    groups: dict[str, list[TrainConfig]] = {}
    for config in configs:
        if known_positions(config):
            split = split_batch(config.batch_size, config.accumulation, processes)
            key = canonical_json(shared_key(config, split, device))
            groups.setdefault(key, []).append(config)
    return [tuple(group) for group in groups.values()]


def spared(group: Sequence[TrainConfig]) -> list[TrainConfig]:
    """Those of a group that need no network once its errors are known, the longest run first.

    At two of them it is worth while to compute the errors beforehand, at all positions of the
    first: less is computed, and by none but that one is a pretrained network run.
    """
    frozen = [config for config in group if not config.reference.own_network]
    return sorted(frozen, key=known_positions, reverse=True)


def reference_errors(
    config: TrainConfig,
    backbone: Backbone,
    data: PairData,
    processes: Processes,
    first: int,
    last: int,
) -> Iterator[Tensor]:
    """Errors of the pretrained network, in pieces ``float32[images, n]`` on the CPU.

    As the loop of :class:`trainers.core.Trainer` computes them. Every process gets all pieces.

    Args:
        config: The run, of whose :func:`shared_key` they are.
        backbone: Its model.
        data: Its pairs.
        processes: They take turns at parts of a batch.
        first: The position to begin at, where a part of a batch begins.
        last: The position before which to end, or a little after it: the last piece is whole.
    """
    init = config.weights.start(backbone.load_network, config.seed).init
    assert init is not None, "a run whose reference is looked at has a pretrained network"
    configure_network(config.weights.network(init), config.channels_last, config.compile)
    stream = Stream(config.seed, len(data), data.latent_shape)
    scale = config.timesteps.scale.factors(backbone.snr).to(processes.device)
    examples = Examples(config, backbone, data, stream, scale)
    split = split_batch(config.batch_size, config.accumulation, processes.count)
    rows = split.rows // split.parts
    for begin in range(first, last, rows * processes.count):
        draws = stream.at(begin + rows * processes.rank, rows)
        timesteps = config.timesteps.law.timesteps(draws.uniform, len(backbone.snr))
        with torch.no_grad():
            errors = examples.errors(init, examples.inputs(draws, timesteps, init))
        yield processes.gather(errors.view(-1, rows)).cpu()
