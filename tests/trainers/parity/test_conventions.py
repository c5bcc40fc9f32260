"""Other sources' beta and learning rate, by computing their logits beside ours."""

import pytest
import torch

from trainers.conventions import BETA_CONVENTIONS, beta_here, beta_there, scaled_lr, unscaled_lr
from trainers.errors import UserError
from trainers.objectives.conformance import of_errors
from trainers.objectives.dpo import DPO

SHAPE = (4, 64, 64)


def logits(beta: float, name: str, squares: torch.Tensor) -> torch.Tensor:
    """u by each source's own formula; ``squares`` is [L_w, L_l, R_w, R_l] x pairs x C x H x W."""
    per_image = {
        "diffusion-dpo code": squares.mean((2, 3, 4)),
        "diffusers sdxl script": squares.mean((2, 3, 4)),
        "diffusers sd script": squares.mean((2, 3, 4)),
        "diffusion-dpo eq. 46": squares.sum((2, 3, 4)),
        "diffusion-dpo pseudo-code": squares.sum((2, 3, 4)),
    }[name]
    policy, reference = per_image[0] - per_image[1], per_image[2] - per_image[3]
    if name in ("diffusers sd script", "diffusion-dpo pseudo-code"):
        return beta * (reference - policy)
    return -0.5 * beta * (policy - reference)


@pytest.mark.parametrize("name", BETA_CONVENTIONS)
def test_every_convention_gives_its_sources_loss(name: str) -> None:
    """-log sigmoid(u) of the source, at its beta, is our loss at the converted one."""
    generator = torch.Generator().manual_seed(0)
    squares = torch.rand((4, 3, *SHAPE), generator=generator, dtype=torch.float64)
    theirs = beta_there(5000.0, name, SHAPE)
    assert beta_here(theirs, name, SHAPE) == pytest.approx(5000.0)
    errors = squares.mean((2, 3, 4))
    ours = DPO(beta=5000.0).loss(of_errors(errors[:2], errors[2:]))
    u = logits(theirs, name, squares)
    torch.testing.assert_close(ours, torch.log1p((-u).exp()), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("diffusers sd script", 2500.0),
        ("diffusers sdxl script", 5000.0),
        ("diffusion-dpo eq. 46", 5000 / 16384),
        ("diffusion-dpo pseudo-code", 5000 / 32768),
    ],
)
def test_what_5000_is_elsewhere(name: str, quoted: float) -> None:
    """At 512 pixels a latent has 4 * 64 * 64 = 16384 elements; the pseudo-code's beta is 0.1526."""
    assert beta_there(5000.0, name, SHAPE) == pytest.approx(quoted)


def test_the_rate_of_the_launchers() -> None:
    """16 devices x 1 pair x 128 accumulated at 1e-8."""
    assert scaled_lr(1e-8, 16 * 1 * 128) == pytest.approx(2.048e-5)
    assert unscaled_lr(2.048e-5, 2048) == pytest.approx(1e-8)


def test_an_unknown_convention() -> None:
    with pytest.raises(UserError, match="unknown convention of beta 'trl'"):
        beta_here(1.0, "trl", SHAPE)
