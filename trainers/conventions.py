"""What beta and the learning rate of other sources are here.

Here a logit is ``-beta / 2 * ((L_w - L_l) - (R_w - R_l))`` with errors that are means over the N
elements of a latent, and ``lr`` is the rate that is applied. Other sources leave the half out, sum
where we average, or multiply the rate by the batch.
"""

from math import prod

from trainers.errors import UserError

BETA_CONVENTIONS = {
    "diffusion-dpo code": ("-beta/2 * difference of means", 1.0, False),
    "diffusers sdxl script": ("-beta/2 * difference of means", 1.0, False),
    "diffusers sd script": ("-beta * difference of means", 2.0, False),
    "diffusion-dpo eq. 46": ("-beta/2 * difference of sums", 1.0, True),
    "diffusion-dpo pseudo-code": ("-beta * difference of sums", 2.0, True),
}
"""The logit of each source, its factor on beta, and whether errors are summed over N elements.

The first is ``SalesforceAIResearch/DiffusionDPO``, ``train.py``; then ``train_diffusion_dpo_sdxl``
and ``train_diffusion_dpo`` of ``huggingface/diffusers``; then arXiv 2311.12908, Eq. 46 and the
pseudo-code of its supplement."""


def beta_here(beta: float, convention: str, latent_shape: tuple[int, ...]) -> float:
    """The beta that gives, here, the logits that ``beta`` gives in ``convention``.

    Args:
        beta: As the source quotes it, above 0.
        convention: A key of :data:`BETA_CONVENTIONS`.
        latent_shape: (C, H, W); matters where errors are summed.

    Raises:
        UserError: If the convention is unknown.
    """
    return beta * _factor(convention, latent_shape)


def beta_there(beta: float, convention: str, latent_shape: tuple[int, ...]) -> float:
    """The inverse of :func:`beta_here`: how ``convention`` would quote our beta."""
    return beta / _factor(convention, latent_shape)


def _factor(convention: str, latent_shape: tuple[int, ...]) -> float:
    if convention not in BETA_CONVENTIONS:
        raise UserError(
            f"unknown convention of beta {convention!r}: known are {', '.join(BETA_CONVENTIONS)}"
        )
    _, factor, summed = BETA_CONVENTIONS[convention]
    return factor * (prod(latent_shape) if summed else 1)


def scaled_lr(lr: float, batch_size: int) -> float:
    """The rate that the public scripts apply with ``--scale_lr``.

    ``batch_size`` is that of an optimiser step: per device, times accumulation, times processes.
    1e-8 at 2048 is 2.048e-5.
    """
    return lr * batch_size


def unscaled_lr(lr: float, batch_size: int) -> float:
    """The inverse of :func:`scaled_lr`: what such a script must be given for our rate."""
    return lr / batch_size
