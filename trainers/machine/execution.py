"""How networks run, whatever is trained: autocast, memory format, compiling, checkpointing."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from trainers.errors import UserError
from trainers.machine.precision import Matmul, Precision, torch_dtype


def autocast(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Mixed precision (Micikevicius et al. 2018, arXiv 1710.03740); nothing at all for float32.

    One context for each forward: weights are cast anew, which is what makes a forward without
    gradients safe next to one with them.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch_dtype(precision))


def set_matmul(matmul: Matmul) -> None:
    """Say how this process multiplies float32 values on a GPU; on a CPU it is always float32.

    For matrices and convolutions alike, whatever was said before. cuDNN is held to deterministic
    algorithms, chosen by rule and not by a race.
    """
    torch.backends.cuda.matmul.allow_tf32 = matmul == "tf32"
    torch.backends.cudnn.allow_tf32 = matmul == "tf32"
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def grad_scaler(precision: Precision, device: str) -> torch.amp.GradScaler:
    """The loss scaler of float16, whose small gradients would vanish; idle for the others."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")


def to_device(values: Tensor, device: str) -> Tensor:
    """``values`` of this process's memory on the device.

    On a GPU the copy is queued: from pinned memory, which is not used again before it was made, so
    that the process need not wait for all work queued before it.
    """
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def to_memory_format(images: Tensor, channels_last: bool) -> Tensor:
    """``images [n, C, H, W]`` in the memory format of the networks."""
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def configure_network(network: nn.Module, channels_last: bool, compiled: bool) -> None:
    """Set the memory format of a network and have it compiled at its first call, in place."""
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        network.compile()


def enable_gradient_checkpointing(network: nn.Module) -> None:
    """Have blocks recomputed in the backward pass (Chen et al. 2016, arXiv 1604.06174).

    Raises:
        UserError: If the network does not know how.
    """
    enable = getattr(network, "enable_gradient_checkpointing", None)
    if enable is None:
        raise UserError(
            f"gradient_checkpointing: {type(network).__name__} cannot recompute its blocks: "
            "set it to false"
        )
    enable()
