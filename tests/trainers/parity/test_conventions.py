"""Other sources' beta and learning rate, by computing their logits beside ours."""

import pytest
import torch

from trainers.conventions import (
    BETA_CONVENTIONS,
    beta_here,
    beta_there,
    scaled_lr,
    sources_of,
    unscaled_lr,
)
from trainers.errors import UserError
from trainers.objectives import OBJECTIVES, Batch
from trainers.objectives.conformance import of_errors
from trainers.objectives.dpo import DPO
from trainers.objectives.hinge import Hinge

SHAPE = (4, 64, 64)


def logits(beta: float, name: str, squares: torch.Tensor) -> torch.Tensor:
    """u by each source's own formula; ``squares`` is [L_w, L_l, R_w, R_l] x pairs x C x H x W."""
    summed = ("diffusion-dpo eq. 46", "diffusion-dpo pseudo-code", "simpletuner flow-dpo")
    whole = ("diffusers sd script", "diffusion-dpo pseudo-code", "thermodpo's flow-dpo")
    per_image = squares.sum((2, 3, 4)) if name in summed else squares.mean((2, 3, 4))
    policy, reference = per_image[0] - per_image[1], per_image[2] - per_image[3]
    return (beta if name in whole else 0.5 * beta) * (reference - policy)


def batch(squares: torch.Tensor) -> Batch:
    errors = squares.mean((2, 3, 4))
    return of_errors(errors[:2], errors[2:])


def random_squares() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((4, 3, *SHAPE), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", sources_of("dpo"))
def test_every_convention_gives_its_sources_loss(name: str) -> None:
    """-log sigmoid(u) of the source, at its beta, is our loss at the converted one."""
    squares = random_squares()
    theirs = beta_there(5000.0, name, SHAPE)
    assert beta_here(theirs, name, SHAPE) == pytest.approx(5000.0)
    ours = DPO(beta=5000.0).loss(batch(squares))
    u = logits(theirs, name, squares)
    torch.testing.assert_close(ours, torch.log1p((-u).exp()), rtol=1e-9, atol=0)


def test_hinges_of_other_sources() -> None:
    """1 - beta * (ref - model) of diffusers; difference + m of Diffusion-DRO, which is beta 1."""
    errors = (squares := random_squares()).mean((2, 3, 4))
    difference = (errors[0] - errors[1]) - (errors[2] - errors[3])
    script = Hinge(beta=beta_here(2500.0, "diffusers hinge", SHAPE))
    torch.testing.assert_close(script.loss(batch(squares)), (1 + 2500 * difference).relu())
    dro = Hinge(beta=beta_here(1.0, "diffusion-dro code", SHAPE), gap=0.001)
    torch.testing.assert_close(dro.loss(batch(squares)), (difference + 0.001).relu())


def test_every_source_is_of_an_objective_that_has_such_a_setting() -> None:
    for name, found in BETA_CONVENTIONS.items():
        assert found.setting in OBJECTIVES.get(found.objective).model_fields, name
        assert name in sources_of(found.objective, found.setting)


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
