"""Where the work of a spec goes."""

import torch

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


def check_device(device: str, where: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UserError: If it is not one of this machine's; the message says ``where`` it was named.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]  # torch appends a trace of its own after that line.
        raise UserError(
            f"{where}: {device!r} cannot be used here ({why}): name a device of this machine, such "
            "as 'cpu'"
        ) from error
