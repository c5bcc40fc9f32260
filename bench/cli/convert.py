"""What the numbers of other sources are here, and ours there."""

from trainers.conventions import BETA_CONVENTIONS, beta_here, beta_there, scaled_lr
from trainers.errors import UserError
from trainers.input.checked import shown


def convert_beta(beta: float, source: str, latent: str) -> list[str]:
    """A line for the spec, and one for each convention.

    Raises:
        UserError: If the source or the shape is not known.
    """
    try:
        shape = tuple(int(side) for side in latent.split("x"))
    except ValueError:
        shape = ()
    if len(shape) != 3 or not all(1 <= side <= 10**6 for side in shape):
        raise UserError(f"--latent: expected a shape such as 4x64x64, got {shown(latent)}")
    here = beta_here(beta, source, shape)
    lines = [f"objective.beta: {here:.6g}   # {beta:.6g} of {source}, latents of {latent}"]
    for name, (logit, _, _) in BETA_CONVENTIONS.items():
        lines.append(f"{beta_there(here, name, shape):>12.6g}  {name}: {logit}")
    return lines


def convert_lr(lr: float, batch_size: int | None) -> str:
    """A line for the spec.

    Raises:
        UserError: If there is no batch size.
    """
    if batch_size is None:
        raise UserError(
            "--lr needs --batch-size: --scale_lr multiplies by pairs per device, accumulation and "
            "processes"
        )
    return f"optimizer.lr: {scaled_lr(lr, batch_size):.6g}   # {lr:g} x {batch_size}"
