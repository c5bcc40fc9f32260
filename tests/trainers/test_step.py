"""A step under every objective: the same however a batch is cut, and nothing that is not needed."""

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.backbones import Condition, Moments
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.data.settings import DataSettings
from trainers.errors import UserError
from trainers.metrics import StepMetrics
from trainers.objectives import OBJECTIVES

Configure = Callable[..., TrainConfig]
A = {"reference": {"name": "hard-copy", "tau": 2, "delta": 1.0, "subset": 2}}
B = {"timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}}}
SDPO: dict[str, Any] = {"safeguard": {"name": "sdpo", "mu": 0.5}}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"objective": {"name": name}} for name in OBJECTIVES.names()},
    "dpo, rough": {"objective": {"name": "dpo", "beta": 100.0}},
    "sdpo": {"objective": {"name": "dpo", "beta": 100.0}, **SDPO},
    "sdpo of two": {"safeguard": {"name": "sdpo", "mu": 0.5, "neighbours": 2}},
    "kto by classes": {"objective": {"name": "kto", "offset": "classes", "positive_ratio": 0.5}},
    "kto by captions": {"objective": {"name": "kto", "offset": "mismatched", "beta": 100.0}},
    "dspo of sdxl": {"objective": {"name": "dspo", "form": "sdxl", "near": 1e-4}, **SDPO},
    "auto-beta": {"objective": {"name": "auto-beta", "beta_max": 200.0, "anchor": 0.1}, **SDPO},
    "own noises": {"noising": {"name": "forward", "share": "timestep"}},
    "inversion": {"noising": {"name": "ddim-inversion", "steps": 3}},
    "renoise": {"noising": {"name": "renoise", "steps": 2, "grid": "fixed"}},
}


def largest(network: nn.Module) -> float:
    return max(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None)


def same_gradients(one: nn.Module, other: nn.Module) -> None:
    """To what float32 keeps of the largest."""
    scale = largest(other)
    assert scale > 0
    for got, want in zip(one.parameters(), other.parameters(), strict=True):
        assert got.grad is not None
        assert want.grad is not None
        torch.testing.assert_close(got.grad, want.grad, rtol=2e-3, atol=5e-5 * scale)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_may_be_cut(
    case: str, configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """8 rows in one part, in 2 x 4 and in 8 x 1: three steps with A and B, from equal weights."""
    settings = A | B | CASES[case] | {"optimizer": {"lr": 1e-3, "max_grad_norm": 1e9}}
    whole, *others = (
        Trainer(configure(batch_size=8, accumulation=n, **settings), backbone, latents)
        for n in (1, 2, 8)
    )
    for _ in range(3):
        expected = whole.advance()
        for trainer in others:
            found = trainer.advance()
            for name in ("loss", "policy_winner", "policy_loser", "reference_winner", "margin"):
                got, want = getattr(found, name), getattr(expected, name)
                if want is None:
                    assert got is None, name
                else:
                    assert got == pytest.approx(want, rel=1e-3, abs=1e-6), name
            assert found.figures == pytest.approx(expected.figures, rel=1e-2, abs=1e-6)
            assert found.timestep_deciles == expected.timestep_deciles
            same_gradients(trainer.policy, whole.policy)
            trainer.policy.load_state_dict(whole.policy.state_dict())
            if trainer.reference is not None and whole.reference is not None:
                trainer.reference.model.load_state_dict(whole.reference.model.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps(
    case: str, configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """With A and B every objective trains: finite all the way, and away from where it began."""
    trainer = Trainer(configure(steps=20, **(A | B | CASES[case])), backbone, latents)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    for _ in range(20):
        metrics = trainer.advance()
    assert all(p.isfinite().all() for p in trainer.policy.parameters())
    assert not all(map(torch.equal, before, trainer.policy.parameters()))
    assert metrics.reference_action == ("update" if trainer.reference is not None else "none")


@pytest.mark.parametrize(
    "case", ["dpo", "sdpo", "auto-beta", "kto", "alpha-dpo", "csft", "inversion"]
)
def test_a_run_that_was_stopped_goes_on(
    case: str, configure: Configure, backbone: StableDiffusion, latents: Pairs, tmp_path: Path
) -> None:
    """To the same bytes, state and safeguard included."""

    class Stop(Exception):
        pass

    def stop(step: int, _: StepMetrics) -> None:
        if step == 4:
            raise Stop

    config = configure(batch_size=4, accumulation=2, **(A | B | CASES[case]))
    Trainer(config, backbone, latents).run(tmp_path / "whole")
    with pytest.raises(Stop):
        Trainer(config, backbone, latents).run(tmp_path / "cut", stop, checkpoint_every=3)
    trainer = Trainer(config, backbone, latents)
    trainer.run(tmp_path / "cut")
    found = [
        {p.relative_to(d): hashlib.sha256(p.read_bytes()).hexdigest()
         for p in d.rglob("*") if p.is_file()}
        for d in (tmp_path / "whole", tmp_path / "cut")
    ]  # fmt: skip
    assert found[0] == found[1]
    if case == "auto-beta":
        assert float(trainer.state["steps"]) == 6


def straight_line(trainer: Trainer, steps: int, beta: float, follows: bool) -> dict[str, Tensor]:
    """DPO with B written out in one piece, on the trainer's draws: the weights it ends at.

    With A where the reference ``follows``, every two steps.
    """
    config, data, backbone = trainer.config, trainer.data, trainer.backbone
    policy, reference = backbone.load_network().train(), backbone.load_network().eval()
    optimizer = config.optimizer.start(policy.parameters())
    scale = config.timesteps.scale.factors(backbone.snr)
    for step in range(steps):
        draws = trainer.stream.at(step * config.batch_size, config.batch_size)
        timesteps = config.timesteps.law.timesteps(draws.uniform, 1000)
        sides = zip(data.images(draws.rows), draws.posterior, strict=True)
        clean = torch.cat([side.mean + side.std * noise for side, noise in sides])
        text = data.condition(draws.rows, draws.drop < config.caption_dropout)["text"]
        noise, t = draws.noise.repeat(2, 1, 1, 1), timesteps.repeat(2)
        noisy, told = backbone.add_noise(clean, noise, t), text.repeat(2, 1, 1)
        with torch.no_grad():
            guess = reference(noisy, t, told).sample
            r_w, r_l = (guess - noise).square().flatten(1).mean(1).chunk(2)
        guess = policy(noisy, t, told).sample
        l_w, l_l = (guess - noise).square().flatten(1).mean(1).chunk(2)
        u = 0.5 * beta * scale[timesteps] * ((r_w - l_w) - (r_l - l_l))
        optimizer.zero_grad()
        (-F.logsigmoid(u).sum() / len(u)).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if follows and (step + 1) % 2 == 0:
            reference.load_state_dict(policy.state_dict())
    weights: dict[str, Tensor] = policy.state_dict()
    return weights


@pytest.mark.parametrize("components", [B, A | B], ids=["B", "A+B"])
def test_dpo_is_the_straight_line_bit_for_bit(
    components: dict[str, Any], configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Whatever else an objective may be shown changes no bit of DPO: same kernels, same shapes."""
    trainer = Trainer(configure(batch_size=3, caption_dropout=0.3, **components), backbone, latents)
    expected = straight_line(trainer, 5, 100.0, follows="reference" in components)
    for _ in range(5):
        trainer.advance()
    for name, value in trainer.policy.state_dict().items():
        assert torch.equal(value, expected[name]), name


def seen(
    backbone: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[nn.Module, int, bool]]:
    """Every forward: network, number of images, and whether gradients are kept."""
    found: list[tuple[nn.Module, int, bool]] = []
    predict = backbone.predict

    def spy(network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        found.append((network, len(noisy), torch.is_grad_enabled()))
        return predict(network, noisy, timesteps, condition)

    monkeypatch.setattr(backbone, "predict", spy)
    return found


FORWARDS: dict[str, tuple[dict[str, Any], list[tuple[str, int, bool]]]] = {
    "dpo": ({}, [("reference", 8, False), ("policy", 8, True)]),
    "sft": ({"objective": {"name": "sft"}}, [("policy", 4, True)]),
    "mapo": ({"objective": {"name": "mapo"}}, [("policy", 8, True)]),
    "kto": ({"objective": {"name": "kto"}}, [("reference", 4, False), ("policy", 4, True)]),
    "kto by captions": (
        {"objective": {"name": "kto", "offset": "mismatched"}},
        [("reference", 4, False), ("policy", 4, True),
         ("reference", 4, False), ("policy", 4, False)],
    ),
    "renoise": (
        {"noising": {"name": "renoise", "steps": 1}},
        [("policy", 8, False)] * 2 + [("reference", 8, False), ("policy", 8, True)],
    ),
    "a safeguard of two rows": (
        {"safeguard": {"name": "sdpo", "neighbours": 2}, "accumulation": 2},
        [("reference", 4, False), ("policy", 4, True)] * 2,
    ),
    "a safeguard of the batch": (
        {"safeguard": {"name": "sdpo"}, "accumulation": 2},
        [("reference", 4, False), ("policy", 4, False)] * 2
        + [("reference", 4, False), ("policy", 4, True)] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORWARDS)
def test_what_is_not_needed_is_not_computed(
    case: str, configure: Configure, backbone: StableDiffusion, latents: Pairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Forwards of a step of 4 rows; and passes by which a plan counts: a backward counts twice."""
    changes, expected = FORWARDS[case]
    trainer = Trainer(configure(batch_size=4, **changes), backbone, latents)
    forwards = seen(backbone, monkeypatch)
    trainer.advance()
    held = {id(trainer.policy): "policy"}
    if trainer.reference is not None:
        held[id(trainer.reference.model)] = "reference"
    assert [(held[id(network)], images, kept) for network, images, kept in forwards] == expected
    passes = sum(images * (3 if kept else 1) for _, images, kept in expected)
    assert trainer.config.passes(trainer.split) == passes / 4


def test_single_images_are_desirable_as_often_as_asked(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """By a draw of the position: 0.8 of 2,000 rows within four deviations; each with its own t."""
    config = configure(objective={"name": "kto"}, batch_size=24)
    trainer = Trainer(config, backbone, latents)
    draws = trainer.stream.at(0, 2000)
    share = float((trainer.examples.sides(draws) == 0).double().mean())
    assert share == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 2000) ** 0.5)
    metrics = trainer.advance()
    sides = trainer.examples.sides(trainer.stream.at(0, 24)).tolist()
    assert set(sides) == {0, 1}
    assert (sum(metrics.decile_winners or []), sum(metrics.decile_losers or [])) == (
        sides.count(0), sides.count(1)
    )  # fmt: skip
    assert (metrics.margin, metrics.decile_pairs, metrics.decile_correct) == (None,) * 3


def test_each_single_image_is_noised_and_labelled_for_itself(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Row by row: the image that the draw chose, its own noise and t, desirable if preferred."""
    config = configure(objective={"name": "kto", "positive_ratio": 0.5}, batch_size=6)
    trainer = Trainer(config, backbone, latents)
    draws = trainer.stream.at(0, 6)
    timesteps = config.timesteps.law.timesteps(draws.uniform, 1000)
    assert len(set(timesteps.tolist())) == 6
    inputs = trainer.examples.inputs(draws, timesteps, trainer.policy)
    reference = trainer.reference
    assert reference is not None
    batch = trainer.examples.batch(inputs, draws, trainer.policy, reference.model)
    for i, side in enumerate((draws.image >= 0.5).long().tolist()):
        moments = latents.images(draws.rows[i : i + 1])[side]
        clean = moments.mean + moments.std * draws.posterior[side, i]
        noisy = backbone.add_noise(clean, draws.noise[i : i + 1], timesteps[i : i + 1])
        torch.testing.assert_close(inputs.noisy[i : i + 1], noisy, rtol=1e-5, atol=1e-6)
        assert float(batch.preference[i]) == 1 - side
    assert len(batch.sides) == 1


def test_gains_under_the_caption_of_the_next_row(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Derived row by row; the last row of the batch takes the first one's, whatever the parts."""
    objective = {"name": "kto", "offset": "mismatched", "positive_ratio": 1.0, "beta": 100.0}
    config = configure(objective=objective, batch_size=4, accumulation=2)
    trainer = Trainer(config, backbone, latents)
    trainer.advance()
    policy, reference = copy.deepcopy(trainer.policy), backbone.load_network()
    draws = trainer.stream.at(4, 4)
    timesteps = config.timesteps.law.timesteps(draws.uniform, 1000)
    winner, _ = latents.images(draws.rows)
    clean = winner.mean + winner.std * draws.posterior[0]
    noisy = backbone.add_noise(clean, draws.noise, timesteps)
    told = latents.condition(draws.rows, torch.zeros(4, dtype=torch.bool))["text"]
    with torch.no_grad():
        errors = [
            (n(noisy, timesteps, told.roll(-1, 0)).sample - draws.noise).square().mean((1, 2, 3))
            for n in (reference, policy)
        ]
    z = (errors[0] - errors[1]).mean().item()
    assert abs(z) > 1e-5
    assert trainer.advance().figures["z"] == pytest.approx(z, rel=1e-3)


def test_sums_by_decile(configure: Configure, backbone: StableDiffusion, latents: Pairs) -> None:
    """They add up to the means of the line, in the tenths in which there are pairs."""
    trainer = Trainer(configure(batch_size=8), backbone, latents)
    for _ in range(2):
        line = trainer.advance()
    for name in ("policy_winner", "policy_loser", "reference_winner", "reference_loser"):
        sums = getattr(line, f"decile_{name}")
        assert sum(sums) / 8 == pytest.approx(getattr(line, name), rel=1e-5)
        assert [value > 0 for value in sums] == [count > 0 for count in line.timestep_deciles]
    assert line.decile_pairs == line.decile_winners == line.decile_losers == line.timestep_deciles
    assert line.decile_correct is not None
    assert line.accuracy == pytest.approx(sum(line.decile_correct) / 8)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"safeguard": {"name": "sdpo", "neighbours": 3}}, "'sdpo' averages over groups of 3 rows"),
        ({"objective": {"name": "kto", "neighbours": 8}}, "'kto' averages over groups of 8 rows"),
    ],
)
def test_groups_that_do_not_divide_a_batch(
    changes: dict[str, Any], told: str, configure: Configure, backbone: StableDiffusion,
    latents: Pairs,
) -> None:  # fmt: skip
    with pytest.raises(UserError, match=told):
        Trainer(configure(batch_size=4, **changes), backbone, latents)


class Weighted(OBJECTIVES.get("dpo")):  # type: ignore[misc]
    name = "weighted"
    columns = ("weight",)

    def loss(self, batch: Any) -> Any:
        return batch.columns["weight"] * super().loss(batch)


def test_further_columns_of_a_pair(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """What the data say of a row reaches the loss; data that do not are refused at once."""

    class Told(Pairs):
        def columns(self, rows: Tensor) -> dict[str, Tensor]:
            return {"weight": rows.double() + 1}

    config = configure(batch_size=4).model_copy(update={"objective": Weighted(beta=100.0)})
    with pytest.raises(UserError, match="'weighted' needs weight of every pair, and the data have"):
        Trainer(config, backbone, latents)
    told = Told(latents.index, DataSettings(), latents.encodings)
    trainer = Trainer(config, backbone, told)
    weights = trainer.stream.at(0, 4).rows.double() + 1
    assert trainer.advance().loss == pytest.approx(0.6931471805599453 * float(weights.mean()))


@pytest.mark.parametrize("case", CASES)
def test_adapters(
    case: str, configure: Configure, backbone: StableDiffusion, latents: Pairs, lora: dict[str, Any]
) -> None:
    """Low-rank adapters train under every objective, safeguard and noising."""
    trainer = Trainer(configure(weights=lora, **(A | B | CASES[case])), backbone, latents)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    for _ in range(3):
        trainer.advance()
    assert all(p.isfinite().all() for p in trainer.policy.parameters())
    assert not all(map(torch.equal, before, trainer.policy.parameters()))


def test_moments_of_images_that_are_chosen(latents: Pairs) -> None:
    """A mixture of winners and losers is what all images of both hold, by either way to them."""
    rows, sides = torch.tensor([3, 1, 3]), torch.tensor([0, 1, 1])
    winner, loser = latents.images(rows)
    expected = torch.stack([winner.mean[0], loser.mean[1], loser.mean[2]])
    found: Moments = latents.chosen_images(rows, sides)
    assert torch.equal(found.mean, expected)
    general: Moments = super(Pairs, latents).chosen_images(rows, sides)
    assert torch.equal(general.mean, expected)
