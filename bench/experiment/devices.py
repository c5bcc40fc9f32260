"""Where the work of a spec goes."""

import torch

from bench.launch.devices import check_device, shares
from bench.spec.model import Spec
from trainers.errors import UserError


def devices(spec: Spec) -> list[tuple[str, str]]:
    """Each key of a spec that names a device, and the device."""
    sections = ("encoding", "training", "generate", "scoring")
    return [(f"{name}.device", getattr(spec, name).device) for name in sections]


def check_devices(spec: Spec) -> None:
    """Refuse a device that is not there, before any work begins.

    Raises:
        UserError: If a device is not one of this machine's, or there are fewer than processes; the
            message names the key.
    """
    for key, device in devices(spec):
        check_device(device, f"spec {spec.name!r}: {key}")
    processes, there = spec.training.processes, torch.cuda.device_count()
    if torch.device(spec.training.device).type == "cuda" and processes > there:
        raise UserError(
            f"spec {spec.name!r}: training.processes: {processes} processes need a GPU each, and "
            f"there are {there}: set it to {there} or less"
        )


def gpu_shares(spec: Spec) -> list[str]:
    """What workers of this machine take turns at: one GPU, or as many as a run has processes.

    None if the spec asks for no GPU, or names the one it means, such as ``cuda:1``.
    """
    named = {device for _, device in devices(spec)}
    if "cuda" not in named or any(device.startswith("cuda:") for device in named):
        return []
    return shares(spec.training.processes if spec.training.device == "cuda" else 1)
