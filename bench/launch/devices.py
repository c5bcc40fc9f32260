"""The devices of this machine, and how workers share them."""

import os

import torch

from trainers.errors import UserError


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


def visible() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in named.split(",")][:count]


def shares(each: int) -> list[str]:
    """Shares of ``each`` GPUs of this machine, as ``CUDA_VISIBLE_DEVICES`` names them."""
    found = visible()
    return [
        ",".join(found[first : first + each]) for first in range(0, len(found) - each + 1, each)
    ]
