"""What the numbers of other sources are here, and ours there."""

from math import inf

from trainers.conventions import BETA_CONVENTIONS, beta_here, beta_there, scaled_lr
from trainers.errors import UserError
from trainers.input.checked import shown


def convert_beta(beta: float, source: str, latent: str) -> list[str]:
    """A line for the spec, and one for each convention.

    Raises:
        UserError: If the source or the shape is not known, or beta is no positive number, be it in
            another convention.
    """
    parts = latent.split("x")
    shape = tuple(
        int(side) for side in parts if side.isascii() and side.isdigit() and len(side) < 7
    )
    if len(parts) != 3 or len(shape) != 3 or min(shape) < 1:
        raise UserError(f"--latent: expected a shape such as 4x64x64, got {shown(latent)}")
    _expect_positive("--beta", beta)
    here = beta_here(beta, source, shape)
    for name in BETA_CONVENTIONS:
        _expect_positive(
            f"--beta {beta:g} of {source}: beta of {name}", beta_there(here, name, shape)
        )
    lines = [f"objective.beta: {here:.6g}   # {beta:.6g} of {source}, latents of {latent}"]
    for name, (logit, _, _) in BETA_CONVENTIONS.items():
        lines.append(f"{beta_there(here, name, shape):>12.6g}  {name}: {logit}")
    return lines


def convert_lr(lr: float, batch_size: int | None) -> str:
    """A line for the spec.

    Raises:
        UserError: If there is no batch size, or the rate is no positive number.
    """
    if batch_size is None:
        raise UserError(
            "--lr needs --batch-size: --scale_lr multiplies by pairs per device, accumulation and "
            "processes"
        )
    _expect_positive("--lr", lr)
    if batch_size < 1:
        raise UserError(f"--batch-size: expected at least 1, got {batch_size}")
    _expect_positive(f"--lr {lr:g} times --batch-size", scaled_lr(lr, batch_size))
    return f"optimizer.lr: {scaled_lr(lr, batch_size):.6g}   # {lr:g} x {batch_size}"


def _expect_positive(what: str, value: float) -> None:
    if not 0 < value < inf:
        raise UserError(f"{what}: expected a number above 0, got {value:g}")
