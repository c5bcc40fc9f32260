"""What beta and the learning rate of other sources are here.

Here a logit is ``-beta / 2 * ((L_w - L_l) - (R_w - R_l))`` with errors that are means over the N
elements of a latent, and ``lr`` is the rate that is applied. Other sources leave the half out, sum
where we average, or multiply the rate by the batch.
"""

from dataclasses import dataclass
from math import prod

from trainers.errors import UserError

MEANS = "-beta/2 * difference of means"
USUAL = "diffusion-dpo code"
"""The source whose convention is ours."""


@dataclass(frozen=True)
class Convention:
    """How a source quotes what stands before the implicit reward, and the learning rate."""

    formula: str
    factor: float = 1.0
    """What its beta is multiplied by."""
    summed: bool = False
    """Whether errors are summed over the N elements of a latent."""
    objective: str = "dpo"
    """Which of ours it is a beta of."""
    setting: str = "beta"
    """Which of the objective's settings."""
    scales_lr: bool | None = True
    """Whether its launchers multiply the rate by the batch (``--scale_lr``); None: not known."""


BETA_CONVENTIONS = {
    USUAL: Convention(MEANS),
    "diffusers sdxl script": Convention(MEANS, scales_lr=False),
    "diffusers sd script": Convention("-beta * difference of means", 2.0, scales_lr=False),
    "diffusion-dpo eq. 46": Convention(
        "-beta/2 * difference of sums", summed=True, scales_lr=None
    ),
    "diffusion-dpo pseudo-code": Convention(
        "-beta * difference of sums", 2.0, summed=True, scales_lr=None
    ),
    "inpo code": Convention(MEANS),
    "diffusion-sdpo code": Convention(MEANS),
    "flow_grpo dpo": Convention(MEANS, scales_lr=False),
    "thermodpo's flow-dpo": Convention("-beta * difference of means", 2.0, scales_lr=None),
    "simpletuner flow-dpo": Convention(
        "-beta/2 * difference of sums", summed=True, scales_lr=None
    ),
    "diffusers hinge": Convention(
        "1 + beta * difference of means", 2.0, objective="hinge", scales_lr=False
    ),
    "diffusion-dro code": Convention(
        "difference of means + m, without a beta: 1", 2.0, objective="hinge", scales_lr=None
    ),
    "sudo code": Convention(MEANS, objective="anchored-dpo", scales_lr=False),
    "smpo code": Convention(f"10 (2 p - 1) * {MEANS}", objective="smpo"),
    "dmpo in diffusion-sdpo": Convention(MEANS, objective="dmpo"),
    "alpha-dpo code": Convention(MEANS, objective="alpha-dpo"),
    "linear-dpo code": Convention(
        "1/2 + beta/5 * difference of means", objective="linear-dpo", scales_lr=False
    ),
    "dspo code": Convention(MEANS, objective="dspo"),
    "thermo-dpo paper": Convention(
        "difference of means * beta / t", objective="thermo-dpo", scales_lr=None
    ),
    "diffusion-kto code": Convention(
        "beta * (R - L) of an image", objective="kto", scales_lr=False
    ),
    "mapo code": Convention(
        "beta_mapo * log sigmoid(1000 * difference of links)", objective="mapo", setting="weight",
        scales_lr=False,
    ),
}  # fmt: skip
"""By source: ``SalesforceAIResearch/DiffusionDPO``, ``train.py``; ``train_diffusion_dpo_sdxl`` and
``train_diffusion_dpo`` of ``huggingface/diffusers``; arXiv 2311.12908, Eq. 46 and the pseudo-code
of its supplement; the others are named in the docstrings of objectives, safeguards and noisings,
but ``train_sd3_dpo.py`` of ``yifan123/flow_grpo``."""


def convention(source: str) -> Convention:
    """That of a source.

    Raises:
        UserError: If the source is unknown.
    """
    if source not in BETA_CONVENTIONS:
        raise UserError(
            f"unknown convention of beta {source!r}: known are {', '.join(BETA_CONVENTIONS)}"
        )
    return BETA_CONVENTIONS[source]


def beta_here(beta: float, source: str, latent_shape: tuple[int, ...]) -> float:
    """The beta that gives, here, the logits that ``beta`` gives in a source's convention.

    Args:
        beta: As the source quotes it, above 0.
        source: A key of :data:`BETA_CONVENTIONS`.
        latent_shape: (C, H, W); matters where errors are summed.

    Raises:
        UserError: If the source is unknown.
    """
    return beta * _factor(source, latent_shape)


def beta_there(beta: float, source: str, latent_shape: tuple[int, ...]) -> float:
    """The inverse of :func:`beta_here`: how a source would quote our beta."""
    return beta / _factor(source, latent_shape)


def _factor(source: str, latent_shape: tuple[int, ...]) -> float:
    found = convention(source)
    return found.factor * (prod(latent_shape) if found.summed else 1)


def sources_of(objective: str, setting: str = "beta") -> list[str]:
    """Sources that quote a setting of one of our objectives."""
    wanted = (objective, setting)
    return [n for n, c in BETA_CONVENTIONS.items() if (c.objective, c.setting) == wanted]


def scaled_lr(lr: float, batch_size: int) -> float:
    """The rate that the public scripts apply with ``--scale_lr``.

    ``batch_size`` is that of an optimiser step: per device, times accumulation, times processes.
    1e-8 at 2048 is 2.048e-5.
    """
    return lr * batch_size


def unscaled_lr(lr: float, batch_size: int) -> float:
    """The inverse of :func:`scaled_lr`: what such a script must be given for our rate."""
    return lr / batch_size
