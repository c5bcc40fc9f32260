"""Exact checkpoints: every tensor a run needs to go on as if it had never stopped.

One safetensors file holds the modules and the tensors of the optimiser state; whatever is no tensor
travels as JSON in its metadata. It is sealed (:mod:`trainers.sealed`): what is loaded is what was
saved.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainers.machine.sharding import full_tensor, shard_like, shard_state_dict
from trainers.sealed import write_sealed


def save(
    path: Path | None,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write modules, optimiser state and JSON-able ``state`` to ``path``.

    Where weights are sharded, every process must take part; all but one give None as ``path``.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}/{k}": v for k, v in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            (tensors if isinstance(value, Tensor) else plain)[f"optimizer/{index}/{slot}"] = value
    full: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = full_tensor(tensor.detach())
        if path is not None:
            full[name] = value.cpu().contiguous().clone()
    if path is None:
        return
    # One entry: the order of several would be left to chance, and with it the bytes.
    metadata = {"state": json.dumps({"state": dict(state), "optimizer": plain})}
    write_sealed(path, lambda part: save_file(full, str(part), metadata))


def read_state(path: Path) -> dict[str, Any]:
    """The saved state alone, to see what a checkpoint belongs to before it is loaded."""
    state: dict[str, Any] = _metadata(path)["state"]
    return state


def _metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stream:
        metadata: dict[str, Any] = json.loads(stream.metadata()["state"])
    return metadata


def load(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore modules and optimiser in place and return the saved state.

    Raises:
        RuntimeError: If a module's tensors do not match (strict loading).
    """
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    metadata = _metadata(path)
    slots: dict[int, dict[str, Any]] = {}
    for name, module in modules.items():
        prefix = f"{name}/"
        saved = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(shard_state_dict(saved, module))
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in (tensors | metadata["optimizer"]).items():
        if key.startswith("optimizer/"):
            _, number, slot = key.split("/")
            index = int(number)
            own = shard_like(value, weights[index]) if isinstance(value, Tensor) else value
            slots.setdefault(index, {})[slot] = own
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    state: dict[str, Any] = metadata["state"]
    return state
