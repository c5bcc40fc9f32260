"""Precision, memory layout, recomputation, compiling: what each changes, and what it does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers import checkpoint
from trainers.backbones import Condition
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.errors import UserError
from trainers.machine.execution import enable_gradient_checkpointing, set_matmul
from trainers.metrics import StepMetrics, log_sha256
from trainers.record import CHECKPOINT, METRICS, RECORD

Configure = Callable[..., TrainConfig]
Start = Callable[..., Trainer]
COPIED = {"name": "hard-copy", "tau": 2, "delta": None, "subset": 1}
LN_2 = 0.6931471805599453


@pytest.fixture(scope="module")
def start(configure: Configure, backbone: StableDiffusion, latents: Pairs) -> Start:
    """A trainer at step 0."""
    return lambda **changes: Trainer(configure(**changes), backbone, latents)


@pytest.fixture
def predictions(backbone: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Whatever the backbone predicts from here on."""
    seen: list[Tensor] = []
    predict = backbone.predict

    def spy(network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        seen.append(predict(network, noisy, timesteps, condition))
        return seen[-1]

    monkeypatch.setattr(backbone, "predict", spy)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the record, which names the run."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != RECORD
    }


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_recomputing_changes_no_bit(
    start: Start, tmp_path: Path, lora: dict[str, Any], kind: str
) -> None:
    """Blocks do run twice, and log and weights are the same bytes.

    The reference is updated, and differs from the policy at every other step: a backward pass that
    met the reference's adapter would give other gradients.
    """
    weights = lora if kind == "lora" else {"name": "full"}
    calls = []
    for again in (False, True):
        trainer = start(
            weights=weights,
            reference=COPIED,
            optimizer={"lr": 0.03},
            steps=4,
            gradient_checkpointing=again,
        )
        network = trainer.config.weights.network(trainer.policy)
        count: list[int] = []
        block = network.get_submodule("up_blocks.0.resnets.1")
        hook = block.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        trainer.run(tmp_path / str(again))
        hook.remove()
        calls.append(len(count))
    # Four steps; and the policy is measured once as a reference, at steps 2 and 4.
    assert calls == [4 + 2, 8 + 2]
    assert files(tmp_path / "True") == files(tmp_path / "False")


def test_a_network_that_cannot_recompute() -> None:
    """It says which."""
    with pytest.raises(UserError, match="gradient_checkpointing: Linear cannot recompute"):
        enable_gradient_checkpointing(nn.Linear(1, 1))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(
    start: Start, predictions: list[Tensor], precision: str, lora: dict[str, Any]
) -> None:
    """Forwards are in half precision, weights and moments float32; the first margin is still 0.

    The losses stay near those of float32: a half has 8 or 11 significant bits.
    """
    exact = start(optimizer={"lr": 1e-4})
    plain = [exact.advance() for _ in range(2)]
    predictions.clear()
    for weights in ({"name": "full"}, lora | {"frozen_dtype": precision}):
        trainer = start(precision=precision, weights=weights, optimizer={"lr": 1e-4})
        trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 256.0})
        steps = [trainer.advance() for _ in range(2)]
        assert {p.dtype for p in predictions} == {getattr(torch, precision)}
        assert {p.dtype for p in trainer.policy.parameters()} == {torch.float32}
        moments = [s["exp_avg"] for s in trainer.optimizer.state.values()]
        assert {m.dtype for m in moments} == {torch.float32}
        assert (steps[0].margin, steps[0].loss) == (0.0, pytest.approx(LN_2, rel=1e-6))
        assert steps[1].margin != 0.0
        for got, want in zip(steps, plain, strict=True):
            assert got.policy_winner == pytest.approx(want.policy_winner, rel=0.02)
            assert got.policy_winner != want.policy_winner
        predictions.clear()


def test_a_reference_stored_in_half_precision(start: Start, lora: dict[str, Any]) -> None:
    """Full weights: pretrained network and reference are, also after an update; the policy is not.

    Of an adapter's network it is the frozen rest.
    """
    half: dict[str, Any] = {"precision": "float16", "reference": COPIED}
    trainer = start(**half, weights={"name": "full", "frozen_dtype": "float16"})
    for _ in range(2):
        trainer.advance()
    for role, kind in (
        (trainer.policy, torch.float32),
        (trainer.init, torch.float16),
        (trainer.reference.model, torch.float16),
    ):
        assert {p.dtype for p in role.parameters()} == {kind}
    pairs = zip(trainer.policy.parameters(), trainer.reference.model.parameters(), strict=True)
    assert all(torch.equal(new.half(), kept) for new, kept in pairs)
    adapted = start(**half, weights=lora | {"frozen_dtype": "float16"})
    network = adapted.config.weights.network(adapted.reference.model)
    kinds = {".lora_" in name: p.dtype for name, p in network.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.float16}


def test_an_overflow_is_skipped_and_the_scale_halved(start: Start, tmp_path: Path) -> None:
    """With a scale of 2^40 the scaled gradients of float16 overflow: nothing is learned.

    The next steps learn once the scale has come down; what it is then is in the checkpoint.
    """
    trainer = start(precision="float16", steps=40)
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 2.0**40})
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    first = trainer.advance()
    assert first.grad_norm is None
    assert trainer.scaler.get_scale() == 2.0**39
    now = trainer.policy.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    skipped = 1
    while trainer.advance().grad_norm is None:
        skipped += 1
    assert trainer.scaler.get_scale() == 2.0 ** (40 - skipped)
    assert not all(
        torch.equal(a, b) for a, b in zip(before, trainer.policy.parameters(), strict=True)
    )
    trainer._save(tmp_path, log_sha256(tmp_path / METRICS, 0))
    again = start(precision="float16", steps=40)
    again._resume(tmp_path)
    assert again.scaler.get_scale() == trainer.scaler.get_scale()
    assert checkpoint.read_state(tmp_path / CHECKPOINT)["scaler"]["_growth_tracker"] == 1


def test_an_overflow_that_no_scale_mends_fails_the_run(start: Start) -> None:
    """At a scale of 1 there is nothing left to lower."""
    trainer = start(precision="float16", objective={"name": "dpo", "beta": 1e9})
    trainer.scaler.load_state_dict(trainer.scaler.state_dict() | {"scale": 1.0})
    with pytest.raises(FloatingPointError, match="gradient of step 1 is not finite"):
        trainer.advance()


def test_channels_last(start: Start, tmp_path: Path, backbone: StableDiffusion) -> None:
    """Images and kernels are laid out so in every network; what is saved is not, and loads."""
    trainer = start(channels_last=True, reference=COPIED, steps=2)
    plain = start(reference=COPIED, steps=2)
    for role in (trainer.policy, trainer.init, trainer.reference.model):
        kernels = [p for p in role.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
        assert kernels
        assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    trainer.run(tmp_path / "last")
    plain.run(tmp_path / "first")
    logs = [
        [json.loads(line) for line in (tmp_path / n / METRICS).read_text().splitlines()]
        for n in ("last", "first")
    ]
    for last, first in zip(*logs, strict=True):
        assert last["policy_winner"] == pytest.approx(first["policy_winner"], rel=1e-3)
    saved = StableDiffusion(backbone.folder).load_network().from_pretrained(tmp_path / "last/unet")  # type: ignore[operator]
    for a, b in zip(saved.parameters(), trainer.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_compiled(
    start: Start, monkeypatch: pytest.MonkeyPatch, lora: dict[str, Any]
) -> None:
    """The network of each role, once."""
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    for rule, count in (({"name": "frozen"}, 2), (COPIED, 3)):
        for weights in ({"name": "full"}, lora):
            compiled.clear()
            trainer = start(compile=True, weights=weights, reference=rule)
            roles = (trainer.policy, trainer.init, trainer.reference.model)
            networks = {id(trainer.config.weights.network(role)) for role in roles}
            assert {id(n) for n in compiled} == networks
            assert len(compiled) == count
    compiled.clear()
    start()
    assert compiled == []


SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"weights": {"name": "lora", "rank": 2}, "reference": COPIED},
    "lora-ema-reference": {
        "weights": {"name": "lora", "rank": 2},
        "reference": {"name": "ema", "decay": 0.5},
        "ema": {"decay": 0.9, "every": 2},
    },
    "adafactor": {"optimizer": {"name": "adafactor", "lr": 1e-3, "schedule": "cosine"}},
    "ema": {"ema": {"decay": 0.9}},
    "float16": {"precision": "float16"},
    "bfloat16": {"precision": "bfloat16", "gradient_checkpointing": True},
    "channels-last": {"channels_last": True, "reference": COPIED},
}


class Interrupted(Exception):
    """Stands for anything that ends a process."""


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_is_uninterrupted(start: Start, tmp_path: Path, name: str) -> None:
    """The bytes of the result and of the log, for each setting, stopped in step 4 of 5."""

    def stop(step: int, metrics: StepMetrics) -> None:
        if step == 4:
            raise Interrupted

    changes = {"optimizer": {"lr": 1e-3}, "steps": 5} | SETTINGS[name]
    start(**changes).run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        start(**changes).run(tmp_path / "cut", on_step=stop, checkpoint_every=3)
    made: list[int] = []
    start(**changes).run(tmp_path / "cut", on_step=lambda step, _: made.append(step))
    assert made == [4, 5]
    logged = (tmp_path / "whole" / METRICS).read_text().splitlines()
    learned = [json.loads(line)["grad_norm"] is not None for line in logged]
    assert learned[3:] == [True, True], learned
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_the_average_is_the_result_unless_told_otherwise(start: Start, tmp_path: Path) -> None:
    """And it changes nothing in training: log and policy are those of a run without."""
    outcome = {}
    for name, ema in {
        "none": None,
        "policy": {"decay": 0.9, "result": "policy"},
        "average": {"decay": 0.9},
    }.items():
        trainer = start(ema=ema, steps=3)
        trainer.run(tmp_path / name)
        outcome[name] = files(tmp_path / name)
    assert outcome["none"] == outcome["policy"]
    assert outcome["none"][METRICS] == outcome["average"][METRICS]
    assert outcome["none"] != outcome["average"]


def flags() -> tuple[bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return (
        torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic,
        cudnn.benchmark,
    )  # fmt: skip


@pytest.mark.parametrize("matmul", ["float32", "tf32"])
def test_a_step_says_how_float32_is_multiplied(matmul: str, start: Start) -> None:
    """Whatever torch's default is, TF32 for convolutions, or a run before this one said."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = matmul != "tf32"
    start(matmul=matmul).advance()
    assert flags() == (matmul == "tf32", matmul == "tf32", True, False)
    set_matmul("float32")
    assert flags() == (False, False, True, False)
