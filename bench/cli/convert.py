"""What the numbers of other sources are here, and ours there."""

import re
from math import inf

from trainers.conventions import (
    BETA_CONVENTIONS,
    USUAL,
    beta_here,
    beta_there,
    convention,
    scaled_lr,
    sources_of,
)
from trainers.errors import UserError
from trainers.input.checked import shown

LARGEST_BATCH = 10**9


def convert_beta(beta: float, source: str, latent: str) -> list[str]:
    """A line for the spec, and one for each convention of that objective.

    Raises:
        UserError: If the source or the shape is not known, or beta is no positive number, be it in
            another convention.
    """
    if not re.fullmatch(r"([1-9][0-9]{0,5}x){2}[1-9][0-9]{0,5}", latent):
        raise UserError(f"--latent: expected a shape such as 4x64x64, got {shown(latent)}")
    shape = tuple(map(int, latent.split("x")))
    _expect_positive("--beta", beta)
    of, here = convention(source), beta_here(beta, source, shape)
    lines = [
        f"objective.{of.setting}: {here:.6g}   # of {of.objective}: {beta:.6g} of {source}, "
        f"latents of {latent}"
    ]
    for name in sources_of(of.objective, of.setting):
        there = beta_there(here, name, shape)
        _expect_positive(f"--beta {beta:g} as that of {name}", there)
        lines.append(f"{there:>12.6g}  {name}: {BETA_CONVENTIONS[name].formula}")
    return lines


def convert_lr(lr: float, batch_size: int | None, source: str = USUAL) -> str:
    """A line for the spec.

    Raises:
        UserError: If the source is unknown, or whether it scales by the batch size, there is no
            batch size to scale by, or the rate is no positive number.
    """
    _expect_positive("--lr", lr)
    if (scales := convention(source).scales_lr) is None:
        raise UserError(f"whether {source} scales its rate by the batch is not known: look there")
    if not scales:
        return f"optimizer.lr: {lr:.6g}   # as it is: {source} does not scale it"
    if batch_size is None:
        raise UserError(
            "--lr needs --batch-size: --scale_lr multiplies by pairs per device, accumulation and "
            "processes"
        )
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise UserError(f"--batch-size: expected 1 to {LARGEST_BATCH}, got {batch_size}")
    scaled = scaled_lr(lr, batch_size)
    _expect_positive(f"--lr {lr:g} times --batch-size", scaled)
    return f"optimizer.lr: {scaled:.6g}   # {lr:g} x {batch_size}"


def _expect_positive(what: str, value: float) -> None:
    if not 0 < value < inf:
        raise UserError(f"{what}: expected a number above 0, got {value:g}")
