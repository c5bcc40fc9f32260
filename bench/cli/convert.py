"""What the numbers of other sources are here, and ours there."""

from trainers.conventions import (
    BETA_CONVENTIONS,
    beta_here,
    beta_there,
    convention,
    scaled_lr,
    sources_of,
)
from trainers.errors import UserError


def convert_beta(beta: float, source: str, latent: str) -> list[str]:
    """A line for the spec, and one for each convention of that objective.

    Raises:
        UserError: If the source or the shape is not known.
    """
    try:
        shape = tuple(int(side) for side in latent.split("x"))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"--latent: expected a shape such as 4x64x64, got {latent!r}")
    of, here = convention(source), beta_here(beta, source, shape)
    lines = [
        f"objective.{of.setting}: {here:.6g}   # of {of.objective}: {beta:.6g} of {source}, "
        f"latents of {latent}"
    ]
    for name in sources_of(of.objective):
        there = beta_there(here, name, shape)
        lines.append(f"{there:>12.6g}  {name}: {BETA_CONVENTIONS[name].formula}")
    return lines


def convert_lr(lr: float, batch_size: int | None, source: str = "diffusion-dpo code") -> str:
    """A line for the spec.

    Raises:
        UserError: If the source is unknown, or whether it scales by the batch size, or there is no
            batch size to scale by.
    """
    if (scales := convention(source).scales_lr) is None:
        raise UserError(f"whether {source} scales its rate by the batch is not known: look there")
    if not scales:
        return f"optimizer.lr: {lr:.6g}   # as it is: {source} does not scale it"
    if batch_size is None:
        raise UserError(
            "--lr needs --batch-size: --scale_lr multiplies by pairs per device, accumulation and "
            "processes"
        )
    return f"optimizer.lr: {scaled_lr(lr, batch_size):.6g}   # {lr:g} x {batch_size}"
