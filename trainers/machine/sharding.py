"""Weights sharded over processes: PyTorch's FSDP2, set up by accelerate's configuration.

Reference: Zhao et al. 2023, "PyTorch FSDP", arXiv 2304.11277; ``torch.distributed.fsdp``.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainers.errors import UserError


@dataclass(frozen=True)
class Sharding:
    """What accelerate's configuration says of FSDP."""

    kind: str
    """Kind of the devices."""
    plugin: Any
    """Its ``FullyShardedDataParallelPlugin``."""

    def shard(self, network: nn.Module) -> None:
        """Shard a network's weights over all processes, in place.

        Units are the layers that the configuration names, or those that the network's class wants
        kept whole. Each is gathered for its own forward and backward only, whatever the
        configuration says: weights are copied from network to network, and must be apart for it.
        """
        mesh = distributed.device_mesh.init_device_mesh(self.kind, (distributed.get_world_size(),))
        wanted = self.plugin.transformer_cls_names_to_wrap
        names = set(wanted or getattr(network, "_no_split_modules", None) or ())
        layers = [m for m in network.modules() if m is not network and type(m).__name__ in names]
        for module in (*reversed(layers), network):
            fully_shard(
                module,
                mesh=mesh,
                reshard_after_forward=True,
                offload_policy=self.plugin.cpu_offload,
            )


def sharding_of(kind: str) -> Sharding | None:
    """What the launcher's configuration asks for, None if each process is to have all weights.

    Raises:
        UserError: If it asks for DeepSpeed, for the first version of FSDP, or for what the spec of
            a run decides.
    """
    if _on("ACCELERATE_USE_DEEPSPEED"):
        raise UserError(
            "accelerate's configuration asks for DeepSpeed, which keeps optimiser states that "
            "checkpoints here cannot hold: choose FSDP with fsdp_version 2"
        )
    if not _on("ACCELERATE_USE_FSDP"):
        return None
    if _on("FSDP_ACTIVATION_CHECKPOINTING"):
        raise UserError(
            "accelerate's configuration asks for fsdp_activation_checkpointing: set it to false, "
            "and train.gradient_checkpointing of the spec to true"
        )
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise UserError(
            f"accelerate's configuration has fsdp_version {plugin.fsdp_version}: set it to 2"
        )
    return Sharding(kind, plugin)


def _on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


def full_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered from all processes, which must all call this; others as is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(value: Tensor, target: Tensor) -> Tensor:
    """This process's shard of ``value``, sharded as ``target`` is; ``value`` if that is not."""
    if not isinstance(target, DTensor) or value.shape != target.shape:
        return value
    placed = value.to(target.device)
    return distribute_tensor(placed, target.device_mesh, target.placements, src_data_rank=None)


def gather_network(
    network: nn.Module, load: Callable[[], nn.Module], wanted: bool
) -> nn.Module | None:
    """An unsharded network with the weights of a sharded one; None where it is not ``wanted``.

    Every process must call this; only those that want it hold all weights at once.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        full = full_tensor(tensor)
        if wanted:
            state[name] = full.cpu()
    if not wanted:
        return None
    unsharded = load().cpu()
    unsharded.load_state_dict(state)
    return unsharded


def shard_state_dict(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A full state dict for ``network.load_state_dict``, whether that is sharded or not."""
    targets = network.state_dict()
    return {k: shard_like(v, targets[k]) if k in targets else v for k, v in state.items()}
