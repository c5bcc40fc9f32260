"""The training loop: a step derived again, what arms share, and what a run leaves behind."""

import copy
import dataclasses
import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from trainers.backbones import Condition, Moments
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.data.settings import DataSettings
from trainers.errors import UserError
from trainers.metrics import StepMetrics
from trainers.record import METRICS, RECORD

Configure = Callable[..., TrainConfig]
COMPONENTS: dict[str, Any] = {
    "law": {"name": "discounted", "gamma": 0.8},
    "scale": {"name": "inverse-sqrt-snr"},
}
LN_2 = 0.6931471805599453
LOSSLESS = {"lr": 1e-3, "max_grad_norm": 1e9}
"""No clipping, so that the gradients of a step can be looked at."""


def unet(model_folder: Path) -> UNet2DConditionModel:
    """The pretrained network, by diffusers."""
    network: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(model_folder / "unet")
    return network


def schedule() -> tuple[Tensor, Tensor]:
    """abar_t of SD's betas, and lambda(t) of arXiv 2505.18736, in double precision."""
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    root = np.sqrt((1 - kept) / kept)
    scale = 1 + (root - root.min()) / (root.max() - root.min())
    return torch.from_numpy(kept), torch.from_numpy(scale)


def noised(clean: Tensor, noise: Tensor, t: int) -> Tensor:
    """sqrt(abar) x_0 + sqrt(1 - abar) eps."""
    kept = float(schedule()[0][t])
    return math.sqrt(kept) * clean + math.sqrt(1 - kept) * noise


def mse(network: nn.Module, clean: Tensor, noise: Tensor, t: int, text: Tensor) -> Tensor:
    """Error of the predicted noise of one latent, per element."""
    noisy = noised(clean, noise, t)[None]
    prediction: Tensor = network(noisy, t, encoder_hidden_states=text[None]).sample[0]
    error: Tensor = F.mse_loss(prediction, noise)
    return error


@dataclass
class Expected:
    """A step derived image by image."""

    losses: list[Tensor]
    errors: dict[str, list[float]]
    margins: list[float]
    timesteps: list[int]


def derive_step(
    trainer: Trainer, policy: nn.Module, reference: nn.Module, beta: float, scaled: bool
) -> Expected:
    """The next step of a trainer, from its draws, with code of its own.

    -log sigmoid(beta/2 lambda ((R_w - L_w) - (R_l - L_l))), one t and one eps for both images.
    """
    config, data = trainer.config, trainer.data
    draws = trainer.stream.at(trainer.step * config.batch_size, config.batch_size)
    timesteps = config.timesteps.law.timesteps(draws.uniform, 1000).tolist()
    names = ("policy_winner", "policy_loser", "reference_winner", "reference_loser")
    out = Expected([], {name: [] for name in names}, [], timesteps)
    for i, t in enumerate(timesteps):
        row = int(draws.rows[i])
        place = torch.tensor([row])
        text = data.condition(place, torch.tensor([False]))["text"][0]
        won, lost = data.images(place)
        winner = won.mean[0] + won.std[0] * draws.posterior[0, i]
        loser = lost.mean[0] + lost.std[0] * draws.posterior[1, i]
        with torch.no_grad():
            ref_w, ref_l = (mse(reference, x, draws.noise[i], t, text) for x in (winner, loser))
        new_w, new_l = (mse(policy, x, draws.noise[i], t, text) for x in (winner, loser))
        margin = (ref_w - new_w) - (ref_l - new_l)
        factor = float(schedule()[1][t]) if scaled else 1.0
        out.losses.append(torch.log1p(torch.exp(-0.5 * beta * factor * margin)))
        out.margins.append(margin.item())
        for name, value in zip(names, (new_w, new_l, ref_w, ref_l), strict=True):
            out.errors[name].append(value.item())
    return out


def check_gradients(policy: nn.Module, expected: nn.Module) -> None:
    """Compare to the largest entry: single entries cancel to nothing in one order or another."""
    largest = max(float(p.grad.abs().max()) for p in expected.parameters() if p.grad is not None)
    assert largest > 0
    for got, want in zip(policy.parameters(), expected.parameters(), strict=True):
        assert got.grad is not None
        assert want.grad is not None
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("scaled", [False, True])
def test_steps_derived_again(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    model_folder: Path,
    scaled: bool,
) -> None:
    """Two steps, image by image in forwards of their own: loss, every error, every gradient.

    In the first, policy and reference agree: margin 0, loss ln 2. In the second they do not.
    """
    timesteps = (
        COMPONENTS if scaled else {"law": {"name": "uniform"}, "scale": {"name": "constant"}}
    )
    config = configure(batch_size=3, timesteps=timesteps, optimizer=LOSSLESS)
    trainer = Trainer(config, backbone, latents)
    reference = unet(model_folder)
    for step in (1, 2):
        policy = copy.deepcopy(trainer.policy)
        policy.zero_grad(set_to_none=True)
        expected = derive_step(trainer, policy, reference, 100.0, scaled)
        loss = torch.stack(expected.losses).mean()
        loss.backward()
        metrics = trainer.advance()
        assert metrics.loss == pytest.approx(loss.item(), rel=1e-4)
        assert metrics.margin == pytest.approx(np.mean(expected.margins), rel=1e-2, abs=1e-6)
        for name, values in expected.errors.items():
            assert getattr(metrics, name) == pytest.approx(np.mean(values), rel=1e-5), name
        check_gradients(trainer.policy, policy)
        norm = torch.stack([p.grad.square().sum() for p in policy.parameters()]).sum().sqrt()  # type: ignore[union-attr]
        assert metrics.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        counts = np.bincount(np.array(expected.timesteps) // 100, minlength=10)
        assert metrics.timestep_deciles == counts.tolist()
        if step == 1:
            assert metrics.loss == pytest.approx(LN_2, rel=1e-6)
            assert (metrics.margin, metrics.accuracy) == (0.0, 0.5)
        else:
            assert abs(metrics.loss - LN_2) > 1e-3
            assert metrics.accuracy == pytest.approx(np.mean([m > 0 for m in expected.margins]))


def test_first_update_of_adamw(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """After one step both bias-corrected moments are g and g^2, so (Loshchilov & Hutter 2019)

    theta <- theta - lr wd theta - lr g / (|g| + eps).
    """
    settings = LOSSLESS | {"lr": 5e-4, "weight_decay": 0.3, "eps": 1e-3}
    trainer = Trainer(configure(optimizer=settings), backbone, latents)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    assert trainer.advance().lr == 5e-4
    for old, new in zip(before, trainer.policy.parameters(), strict=True):
        assert new.grad is not None
        g = new.grad
        expected = old - 5e-4 * 0.3 * old - 5e-4 * g / (g.abs() + 1e-3)
        torch.testing.assert_close(new.detach(), expected, rtol=1e-5, atol=1e-7)


def test_the_rate_warms_up_from_zero(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """The first step moves nothing, as with the public schedules; the second goes half as far."""
    trainer = Trainer(configure(optimizer=LOSSLESS | {"warmup_steps": 2}), backbone, latents)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    assert trainer.advance().lr == 0
    assert all(map(torch.equal, before, trainer.policy.parameters()))
    assert trainer.advance().lr == 5e-4
    assert not all(map(torch.equal, before, trainer.policy.parameters()))


def test_gradients_are_clipped_as_a_whole(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Their joint norm becomes max_grad_norm; logged is the norm before."""
    settings = {"lr": 1e-3, "max_grad_norm": 0.25}
    trainer = Trainer(configure(optimizer=settings), backbone, latents)
    free = Trainer(configure(optimizer=LOSSLESS), backbone, latents)
    metrics, plain = trainer.advance(), free.advance()
    assert metrics.grad_norm == plain.grad_norm > 0.25
    squares = [float(p.grad.square().sum()) for p in trainer.policy.parameters()]  # type: ignore[union-attr]
    assert sum(squares) ** 0.5 == pytest.approx(0.25, rel=1e-4)


def test_accumulation(configure: Configure, backbone: StableDiffusion, latents: Pairs) -> None:
    """A batch of 4 in one part or in four: the same mean loss and gradients, to rounding."""
    whole, parts = (
        Trainer(
            configure(batch_size=4, accumulation=n, optimizer=LOSSLESS, timesteps=COMPONENTS),
            backbone,
            latents,
        )
        for n in (1, 4)
    )
    one, other = whole.advance(), parts.advance()
    check_gradients(parts.policy, whole.policy)
    parts.policy.load_state_dict(whole.policy.state_dict())
    one, other = whole.advance(), parts.advance()
    check_gradients(parts.policy, whole.policy)
    assert abs(one.loss - LN_2) > 1e-3
    for name in ("loss", "policy_winner", "policy_loser", "reference_winner", "grad_norm"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-4), name
    assert other.timestep_deciles == one.timestep_deciles
    assert other.accuracy == one.accuracy


def test_a_batch_that_cannot_be_cut_is_refused(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Unequal parts would weigh their pairs unequally."""
    with pytest.raises(UserError, match="batch_size 4 cannot be cut into 3 equal parts"):
        Trainer(configure(batch_size=4, accumulation=3), backbone, latents)


def test_sft_does_not_see_the_loser(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """Other losers change neither its loss nor its gradients."""

    class Winners(Pairs):
        def images(self, rows: Tensor) -> tuple[Moments, Moments]:
            winner, _ = super().images(rows)
            return winner, winner

    winners = Winners(latents.index, DataSettings(), latents.encodings)
    config = configure(objective={"name": "sft"}, optimizer=LOSSLESS)
    one, other = Trainer(config, backbone, latents), Trainer(config, backbone, winners)
    first, second = one.advance(), other.advance()
    assert first.loss == pytest.approx(first.policy_winner, rel=1e-6)
    assert second.loss == pytest.approx(first.loss, rel=1e-6)
    assert second.policy_loser != pytest.approx(first.policy_loser, rel=1e-3)
    check_gradients(one.policy, other.policy)


def test_divergence_derived_again(
    configure: Configure, backbone: StableDiffusion, latents: Pairs, model_folder: Path
) -> None:
    """Mean over the first winners of the batch of mse(policy) - mse(pretrained), per element.

    arXiv 2505.18736, Eq. 8: positive where the policy denoises preferred images worse. Whatever
    the arm's law, its timesteps are uniform: floor(1000 u).
    """
    reference = {"name": "hard-copy", "tau": 2, "delta": None, "subset": 3}
    config = configure(
        batch_size=4, timesteps=COMPONENTS, reference=reference, optimizer={"lr": 5e-3}
    )
    trainer = Trainer(config, backbone, latents)
    assert trainer.advance().divergence is None
    measured = trainer.advance()
    assert measured.reference_action == "update"
    init = unet(model_folder)
    rows = trainer.stream.at(4, 4).rows[:3].tolist()
    uniform, noise = trainer.stream.gate(2, 3)
    differences = []
    with torch.no_grad():
        for row, u, eps in zip(rows, uniform.tolist(), noise, strict=True):
            place = torch.tensor([row])
            image = latents.images(place)[0].mean[0]
            text = latents.condition(place, torch.tensor([False]))["text"][0]
            now, then = (mse(n, image, eps, int(1000 * u), text) for n in (trainer.policy, init))
            differences.append(float(now - then))
    assert abs(np.mean(differences)) > 1e-4
    assert measured.divergence == pytest.approx(np.mean(differences), rel=1e-3)


def test_the_updated_reference_is_the_policy(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    """After the update of step 2 policy and reference agree, so step 3 has margin 0 and loss ln 2.

    The pretrained network stays what it was.
    """
    reference = {"name": "hard-copy", "tau": 2, "delta": None, "subset": 1}
    trainer = Trainer(configure(reference=reference), backbone, latents)
    before = copy.deepcopy(trainer.init.state_dict())
    losses = [trainer.advance().loss for _ in range(4)]
    assert [losses[0], losses[2]] == pytest.approx([LN_2, LN_2], rel=1e-6)
    assert min(abs(losses[1] - LN_2), abs(losses[3] - LN_2)) > 1e-3
    assert all(torch.equal(v, before[k]) for k, v in trainer.init.state_dict().items())


def test_caption_dropout(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pairs whose draw is below the rate get the empty prompt's text, for winner and loser alike.

    Policy and reference see the same text; the other pairs keep their own.
    """
    seen: list[Condition] = []
    predict = backbone.predict

    def spy(network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        seen.append(condition)
        return predict(network, noisy, timesteps, condition)

    monkeypatch.setattr(backbone, "predict", spy)
    trainer = Trainer(configure(batch_size=12, caption_dropout=0.5), backbone, latents)
    trainer.advance()
    draws = trainer.stream.at(0, 12)
    empty = backbone.encode_prompts([""])["text"][0]
    dropped = [bool(d < 0.5) for d in draws.drop]
    assert 0 < sum(dropped) < 12
    assert len(seen) == 2
    for condition in seen:
        for i, gone in enumerate(dropped * 2):
            place = draws.rows[i % 12][None]
            own = latents.condition(place, torch.tensor([False]))["text"][0]
            torch.testing.assert_close(
                condition["text"][i], empty if gone else own, rtol=1e-5, atol=1e-5
            )


@pytest.fixture(scope="module")
def base(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Trainer, Path]:
    """A finished plain DPO run."""
    folder = tmp_path_factory.mktemp("base")
    trainer = Trainer(configure(), backbone, latents)
    trainer.run(folder)
    return trainer, folder


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the record, which names the run."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != RECORD
    }


def test_what_a_run_leaves(base: tuple[Trainer, Path]) -> None:
    """The log of every step and the network, which diffusers loads; no checkpoint, no scraps.

    And a record of what these are.
    """
    trainer, folder = base
    record = json.loads((folder / RECORD).read_text())
    assert (record["run_id"], record["config"]) == (
        trainer.config.run_id(), trainer.config.model_dump(mode="json")
    )  # fmt: skip
    assert record["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in files(folder).items()
    }
    assert set(files(folder)) == {
        METRICS, "unet/config.json", "unet/diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    saved = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    policy = trainer.policy.state_dict()
    assert saved.keys() == policy.keys()
    assert all(torch.equal(saved[name], policy[name]) for name in saved)
    assert not all(torch.equal(saved[n], v) for n, v in trainer.init.state_dict().items())


def test_the_log(base: tuple[Trainer, Path]) -> None:
    """One line a step, with all of its numbers; every pair is in one tenth of the timesteps."""
    lines = [json.loads(line) for line in (base[1] / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert line.keys() == {f.name for f in dataclasses.fields(StepMetrics)}
        assert sum(line["timestep_deciles"]) == 2
        margin = line["reference_winner"] - line["policy_winner"]
        margin -= line["reference_loser"] - line["policy_loser"]
        assert line["margin"] == pytest.approx(margin, abs=1e-6)


def test_on_step_is_told_every_step(
    configure: Configure, backbone: StableDiffusion, latents: Pairs, tmp_path: Path
) -> None:
    """With what the log holds."""
    told: list[tuple[int, StepMetrics]] = []
    trainer = Trainer(configure(steps=2), backbone, latents)
    trainer.run(tmp_path, on_step=lambda step, metrics: told.append((step, metrics)))
    assert [step for step, _ in told] == [1, 2]
    logged = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [dataclasses.asdict(m) for _, m in told] == logged


OFF: dict[str, dict[str, Any]] = {
    "hard copy later than the last step": {"reference": {"name": "hard-copy", "tau": 7}},
    "soft update later than the last step": {"reference": {"name": "soft", "tau": 7}},
    "EMA later than the last step": {"reference": {"name": "ema", "tau": 7}},
    "no discount": {
        "timesteps": {
            "law": {"name": "discounted", "gamma": 1.0, "intervals": 50},
            "scale": {"name": "constant"},
        }
    },
}


@pytest.mark.parametrize("component", OFF)
def test_a_component_that_is_off_is_the_base_run(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    tmp_path: Path,
    base: tuple[Trainer, Path],
    component: str,
) -> None:
    """Bit for bit: the bytes of the network and of the log."""
    config = configure(**OFF[component])
    assert config.run_id() != base[0].config.run_id()
    Trainer(config, backbone, latents).run(tmp_path)
    assert files(tmp_path) == files(base[1])


def test_a_component_that_is_on_is_not(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    tmp_path: Path,
    base: tuple[Trainer, Path],
) -> None:
    """The comparison above can fail; and a full soft update is a hard copy to the bit."""
    arms: dict[str, dict[str, Any]] = {
        "hard": {"reference": {"name": "hard-copy", "tau": 2, "delta": None, "subset": 1}},
        "soft": {"reference": {"name": "soft", "tau": 2, "alpha": 1.0, "subset": 1}},
        "law": {"timesteps": {"law": COMPONENTS["law"], "scale": {"name": "constant"}}},
        "scale": {"timesteps": {"law": {"name": "uniform"}, "scale": COMPONENTS["scale"]}},
        "seed": {"seed": 8},
    }
    got = {}
    for name, changes in arms.items():
        Trainer(configure(steps=4, **changes), backbone, latents).run(tmp_path / name)
        got[name] = files(tmp_path / name)
    assert got["hard"] == got["soft"]
    Trainer(configure(steps=4), backbone, latents).run(tmp_path / "base")
    got["base"] = files(tmp_path / "base")
    weights = {run["unet/diffusion_pytorch_model.safetensors"] for run in got.values()}
    assert len(weights) == len(arms)
    first_three = (base[1] / METRICS).read_bytes().splitlines()[:4]
    assert got["base"][METRICS].splitlines() == first_three


@pytest.mark.parametrize("step", [1, 3])
def test_a_gradient_that_is_no_number_fails_the_run(
    configure: Configure, backbone: StableDiffusion, latents: Pairs, tmp_path: Path, step: int
) -> None:
    """Poison the first pair of a step: it raises, again when run again, and leaves no network.

    The weights stay those before the step, and the log holds the steps made, checkpoint or not.
    """
    config = configure()
    row = int(Trainer(config, backbone, latents).stream.at(2 * (step - 1), 1).rows)

    class Poisoned(Pairs):
        def images(self, rows: Tensor) -> tuple[Moments, Moments]:
            winner, loser = super().images(rows)
            winner.mean[rows == row] = torch.nan
            return winner, loser

    poisoned = Poisoned(latents.index, DataSettings(), latents.encodings)
    for every in (50, 1, 1):
        trainer = Trainer(config, backbone, poisoned)
        message = f"gradient of step {step} is not finite: the encodings .* the autoencoder"
        with pytest.raises(FloatingPointError, match=message):
            trainer.run(tmp_path, checkpoint_every=every)
        assert len((tmp_path / METRICS).read_text().splitlines()) == step - 1
        assert not (tmp_path / "unet").exists()
        assert all(torch.isfinite(p).all() for p in trainer.policy.parameters())
        assert trainer.step == step - 1


def test_no_global_randomness(
    configure: Configure, backbone: StableDiffusion, latents: Pairs, tmp_path: Path,
    parquet: Path, model_folder: Path, open_pairs: Callable[..., Pairs],
) -> None:  # fmt: skip
    """Neither used nor disturbed: the generators of torch, NumPy and Python stand as before,

    and a run with other global seeds gives the same bytes.
    """
    config = configure(
        steps=2,
        batch_size=2,
        caption_dropout=0.5,
        timesteps=COMPONENTS,
        reference={"name": "soft", "tau": 1, "delta": 0.1},
    )
    outcomes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        torch_state, python_state = torch.get_rng_state(), random.getstate()
        numpy_state = np.random.get_state()  # noqa: NPY002
        fresh = StableDiffusion(model_folder)
        data = open_pairs(parquet, fresh, tmp_path / "encodings") if seed == 1 else latents
        Trainer(config, fresh, data).run(tmp_path / str(seed), checkpoint_every=1)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert random.getstate() == python_state
        for a, b in zip(np.random.get_state(), numpy_state, strict=True):  # noqa: NPY002
            np.testing.assert_array_equal(a, b)
        outcomes.append(files(tmp_path / str(seed)))
    assert outcomes[0] == outcomes[1]
