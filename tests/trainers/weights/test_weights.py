"""What is trained: with low-rank adapters, the adapters alone, over one set of frozen weights."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from bench.images.draw import load_pipeline
from trainers.backbones.base import ADAPTER_FILE
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.errors import UserError
from trainers.record import METRICS, RECORD
from trainers.weights.adapter import Adapted

Configure = Callable[..., TrainConfig]
Start = Callable[..., Trainer]
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
COPIED = {"name": "hard-copy", "tau": 2, "delta": None, "subset": 1}
ROUGH = {"lr": 0.05}
LN_2 = 0.6931471805599453


@pytest.fixture(scope="module")
def start(
    configure: Configure, backbone: StableDiffusion, latents: Pairs, lora: dict[str, Any]
) -> Start:
    """A trainer of an adapter at step 0."""
    return lambda **changes: Trainer(configure(**({"weights": lora} | changes)), backbone, latents)


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the record, which names the run."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != RECORD
    }


def frozen(role: nn.Module) -> dict[str, Tensor]:
    """The weights of a role's network that are no adapter, by their pretrained names."""
    assert isinstance(role, Adapted)
    weights = role.network.state_dict()
    return {n.replace(".base_layer", ""): w for n, w in weights.items() if ".lora_" not in n}


def pretrained(model_folder: Path) -> UNet2DConditionModel:
    """The network as diffusers reads it."""
    network: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(model_folder / "unet")
    return network


def targeted(network: nn.Module) -> dict[str, nn.Linear]:
    """The layers that an adapter goes to."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if name.endswith(TARGETS) and isinstance(layer, nn.Linear)
    }


def test_only_adapters_are_trained(start: Start, model_folder: Path) -> None:
    """rank (in + out) numbers a layer; no bit of any other weight changes, and each is there once.

    Policy, pretrained network and updated reference hold the same tensors.
    """
    trainer = start(reference=COPIED, optimizer=ROUGH)
    layers = targeted(pretrained(model_folder)).values()
    assert len(layers) > 0
    size = sum(2 * (layer.in_features + layer.out_features) for layer in layers)
    assert sum(p.numel() for p in trainer.policy.parameters() if p.requires_grad) == size
    assert sum(p.numel() for g in trainer.optimizer.param_groups for p in g["params"]) == size
    before = copy.deepcopy(trainer.policy.state_dict())
    for _ in range(3):
        trainer.advance()
    changed = [n for n, w in trainer.policy.state_dict().items() if not torch.equal(w, before[n])]
    assert len(changed) == 2 * len(layers)
    roles = [frozen(r) for r in (trainer.policy, trainer.init, trainer.reference.model)]
    base = pretrained(model_folder).state_dict()
    for name, weight in base.items():
        assert torch.equal(roles[0][name], weight)
        assert len({role[name].data_ptr() for role in roles}) == 1
    assert all(role.keys() == base.keys() for role in roles)


def test_an_adapter_adds_the_product_of_its_factors(start: Start, model_folder: Path) -> None:
    """W + alpha / rank B A, put into a plain network by hand, predicts the same."""
    trainer = start(optimizer=ROUGH)
    for _ in range(2):
        trainer.advance()
    by_hand = pretrained(model_folder)
    factors = dict(trainer.config.weights.network(trainer.policy).named_parameters())
    for name, layer in targeted(by_hand).items():
        low, high = (factors[f"{name}.lora_{x}.default.weight"] for x in "AB")
        layer.weight.data += 1.5 * (high @ low).detach()
    torch.manual_seed(0)
    noisy, text, t = torch.randn(2, 4, 4, 4), torch.randn(2, 8, 16), torch.tensor([10, 900])
    with torch.no_grad():
        got, off, expected = (
            n(noisy, t, text).sample for n in (trainer.policy, trainer.init, by_hand)
        )
        assert torch.equal(off, pretrained(model_folder)(noisy, t, text).sample)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, off, rtol=1e-3, atol=1e-3)


def test_roles_agree_at_first(start: Start) -> None:
    """To the bit: at first, and after an update of the reference, margin 0 and loss ln 2."""
    trainer = start(reference=COPIED, optimizer=ROUGH)
    steps = [trainer.advance() for _ in range(3)]
    assert [step.margin for step in steps] == [0.0, steps[1].margin, 0.0]
    assert steps[1].margin != 0
    assert [steps[0].loss, steps[2].loss] == pytest.approx([LN_2, LN_2], rel=1e-6)


def test_a_reference_that_never_updates_is_a_frozen_one(start: Start, tmp_path: Path) -> None:
    """Bit for bit, though one is an adapter of its own and the other none at all."""
    for name, rule in {
        "frozen": {"name": "frozen"},
        "hard": {"name": "hard-copy", "tau": 7},
        "soft": {"name": "soft", "tau": 7},
        "on": COPIED,
    }.items():
        start(reference=rule, optimizer=ROUGH, steps=4).run(tmp_path / name)
    base = files(tmp_path / "frozen")
    assert set(base) == {METRICS, ADAPTER_FILE}
    assert files(tmp_path / "hard") == files(tmp_path / "soft") == base
    assert files(tmp_path / "on")[ADAPTER_FILE] != base[ADAPTER_FILE]


def test_reinit_puts_the_first_adapter_back(start: Start) -> None:
    """The reference is then the pretrained network again."""
    rule = COPIED | {"tau": 1, "delta": 0.0, "on_exceed": "reinit"}
    trainer = start(reference=rule, optimizer=ROUGH)
    trainer.reference.model.load_state_dict(
        {n: w + 1 for n, w in trainer.policy.state_dict().items()}
    )
    event = trainer.reference.after_step(1, trainer.policy, lambda network, n: 0.1)
    assert event.action == "reinit"
    first = trainer.init.state_dict()
    assert all(torch.equal(w, first[n]) for n, w in trainer.reference.model.state_dict().items())
    assert all((w == 0).all() for n, w in first.items() if "/lora_B/" in n)


def test_the_first_adapter_is_the_seeds(start: Start) -> None:
    """A from N(0, 1 / rank^2), the same for every arm of a seed, whatever the global state is."""
    drawn = []
    for seed, rule in ((7, COPIED), (7, {"name": "frozen"}), (8, {"name": "frozen"})):
        torch.manual_seed(len(drawn))
        state = torch.get_rng_state()
        weights = start(seed=seed, reference=rule).policy.state_dict()
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(torch.cat([w.flatten() for n, w in weights.items() if "/lora_A/" in n]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    spread = 0.5 / (2 * len(drawn[0])) ** 0.5  # Standard error of an estimated deviation.
    assert float(drawn[0].std()) == pytest.approx(0.5, abs=4 * spread)
    assert len(set(drawn[0].tolist())) > 0.99 * len(drawn[0])


def sample(pipeline: StableDiffusionPipeline) -> NDArray[np.uint8]:
    """A small picture."""
    picture = pipeline(
        "a cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).images[0]
    return np.asarray(picture)


def test_the_adapter_makes_the_same_images_in_diffusers(
    start: Start, model_folder: Path, tmp_path: Path
) -> None:
    """The pipeline with the folder loaded, or made by the harness, is the policy in memory."""
    trainer = start(optimizer=ROUGH)
    trainer.run(tmp_path)
    with safe_open(tmp_path / ADAPTER_FILE, framework="pt") as stream:
        assert {name.split(".")[0] for name in stream.keys()} == {"unet"}  # noqa: SIM118
    plain, memory, loaded = (load_pipeline(model_folder, None, "ddim") for _ in range(3))
    memory.unet = trainer.config.weights.network(trainer.policy)
    loaded.load_lora_weights(tmp_path)
    expected = sample(memory)
    np.testing.assert_array_equal(sample(loaded), expected)
    np.testing.assert_array_equal(sample(load_pipeline(model_folder, tmp_path, "ddim")), expected)
    assert (sample(plain) != expected).any()


def test_targets_that_fit_nothing(start: Start) -> None:
    """One that is misspelt, and one that is no layer with a matrix."""
    with pytest.raises(UserError, match="no layer of UNet2DConditionModel is called 'to_w'"):
        start(weights={"name": "lora", "targets": ["to_q", "to_w"]})
    with pytest.raises(UserError, match=r"weights 'lora': targets: .*not supported"):
        start(weights={"name": "lora", "targets": ["attn1"]})


def test_peft_is_needed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"needs peft.*pip install 'dpo-bench\[lora\]'"):
        start()


def test_the_trained_shapes_are_those_of_the_policy(start: Start) -> None:
    """Read from the names of the network: all of them with full weights, A and B with LoRA."""
    trainer = start()
    network = trainer.backbone.load_network()
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    for run in (trainer, start(weights={"name": "full"})):
        said = run.config.weights.trained_shapes(shapes)
        assert sorted(said) == sorted(tuple(p.shape) for p in run.policy.parameters())
