"""What the numbers of other sources are here, and ours there."""

import re
from math import inf

from trainers.conventions import BETA_CONVENTIONS, beta_here, beta_there, scaled_lr
from trainers.errors import UserError
from trainers.input.checked import shown

LARGEST_BATCH = 10**9


def convert_beta(beta: float, source: str, latent: str) -> list[str]:
    """A line for the spec, and one for each convention.

    Raises:
        UserError: If the source or the shape is not known, or beta is no positive number, be it in
            another convention.
    """
    if not re.fullmatch(r"([1-9][0-9]{0,5}x){2}[1-9][0-9]{0,5}", latent):
        raise UserError(f"--latent: expected a shape such as 4x64x64, got {shown(latent)}")
    shape = tuple(map(int, latent.split("x")))
    _expect_positive("--beta", beta)
    here = beta_here(beta, source, shape)
    lines = [f"objective.beta: {here:.6g}   # {beta:.6g} of {source}, latents of {latent}"]
    for name, (logit, _, _) in BETA_CONVENTIONS.items():
        there = beta_there(here, name, shape)
        _expect_positive(f"--beta {beta:g} as that of {name}", there)
        lines.append(f"{there:>12.6g}  {name}: {logit}")
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
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise UserError(f"--batch-size: expected 1 to {LARGEST_BATCH}, got {batch_size}")
    scaled = scaled_lr(lr, batch_size)
    _expect_positive(f"--lr {lr:g} times --batch-size", scaled)
    return f"optimizer.lr: {scaled:.6g}   # {lr:g} x {batch_size}"


def _expect_positive(what: str, value: float) -> None:
    if not 0 < value < inf:
        raise UserError(f"{what}: expected a number above 0, got {value:g}")
