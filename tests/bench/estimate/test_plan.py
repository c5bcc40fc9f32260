"""``bench plan``: counted parameters, operations and memory against published and hand figures."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cli import run
from bench.estimate import network as measure
from bench.estimate.architectures import KNOWN, SD15, find_architecture
from bench.estimate.images import encoding_memory, encoding_space, scoring_memory
from bench.estimate.network import Cost, Saved, network_cost, text_parameters, vae_cost
from bench.estimate.plan import Assumptions, budget
from bench.estimate.training import Training as Run
from bench.estimate.training import (
    guesses,
    optimizer_bytes,
    step_flops,
    trained_shapes,
    training_memory,
    training_of,
)
from bench.spec.matrix import build_matrix
from bench.spec.model import Training, load_spec
from trainers.config import TrainConfig
from trainers.errors import UserError

PLAIN = Run("float32", False, "adamw", "full", "float32", 0, (), False, False, 0.0, 2)
TOY = Cost(70, 1000, Saved(100, 80, 50, 10), (("a.to_q.weight", (4, 8)), ("b.weight", (38,))))


@pytest.mark.parametrize(
    ("name", "network", "vae", "texts"),
    [
        # 860 M, 84 M and 123 M are what every account of SD 1.5 has.
        ("sd15", 859_520_964, 83_653_863, 123_060_480),
        # 2.6 B and 817 M: Podell et al. 2023 (arXiv 2307.01952), Table 1.
        ("sdxl", 2_567_463_684, 83_653_863, 817_720_320),
        # 2 B: Esser et al. 2024 (arXiv 2403.03206), depth 24; T5-XXL's encoder has 4.76 B.
        ("sd3-medium", 2_028_328_000, 83_819_683, 5_580_000_000),
    ],
)
def test_known_models(name: str, network: int, vae: int, texts: int) -> None:
    """Built from the configs on the meta device: the published sizes."""
    model = KNOWN[name]
    assert measure.count(measure.denoiser(model)) == network
    assert vae_cost(model, 8)[0] == pytest.approx(vae, rel=1e-4)
    assert text_parameters(model) == pytest.approx(texts, rel=1e-3)


def test_operations_and_activations_of_a_small_network_by_hand() -> None:
    """A 1x1 convolution of C to C channels on S x S costs 2 C^2 S^2 and keeps its input."""
    network = nn.Sequential(nn.Conv2d(4, 4, 1, device="meta"), nn.Conv2d(4, 4, 1, device="meta"))
    with measure._watch(network) as saved:
        out = network(torch.empty(1, 4, 8, 8, device="meta"))
    assert out.shape == (1, 4, 8, 8)
    assert saved.plain() == 2 * 4 * 8 * 8 * 4


def test_the_forward_pass_of_stable_diffusion() -> None:
    """About 0.8 TFLOP at 512 pixels; twice the side is at least four times the work."""
    cost = network_cost(SD15, 64)
    assert cost.forward_flops == pytest.approx(0.8e12, rel=0.02)
    assert cost.forward_flops > 4 * network_cost(SD15, 32).forward_flops
    assert 0 < cost.saved.checkpointed() < 0.3 * cost.saved.plain()


def test_counted_activations_are_those_of_a_real_run() -> None:
    """The same count on the CPU, where tensors are real, of a small network of the same make."""
    from diffusers import UNet2DConditionModel

    from bench.estimate.architectures import Architecture

    config = {
        "sample_size": 8, "block_out_channels": [32, 32], "cross_attention_dim": 16,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "attention_head_dim": 4,
        "layers_per_block": 1,
    }  # fmt: skip
    model = Architecture("t", "UNet2DConditionModel", config, SD15.vae, (), 5, "")
    counted = network_cost(model, 8)
    with torch.random.fork_rng():
        real = UNet2DConditionModel.from_config(config)
    seen: dict[int, torch.Tensor] = {}
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        real(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.zeros(1, 5, 16))
    kept = sum(t.untyped_storage().nbytes() for t in seen.values())
    assert counted.saved.plain() == pytest.approx(kept, rel=0.05)


def test_memory_by_hand() -> None:
    """70 weights: four bytes each for policy, init, gradient, eight for AdamW; two images."""
    gib = 2**30
    parts = {k: round(v * gib) for k, v in training_memory(PLAIN, TOY).items()}
    assert parts == {
        "policy": 280, "pretrained": 280, "reference": 0, "half-precision copy": 0,
        "gradients": 280, "optimiser": 560, "moving average": 0, "activations": 200,
    }  # fmt: skip
    lora = Run("bfloat16", True, "adamw", "lora", "bfloat16", 2, ("to_q",), True, True, 0, 2)
    assert trained_shapes(lora, TOY) == [(2, 8), (4, 2)]
    parts = {k: round(v * gib) for k, v in training_memory(lora, TOY).items()}
    assert parts == {
        "policy": 96, "pretrained": 140, "reference": 96, "half-precision copy": 0,
        "gradients": 96, "optimiser": 192, "moving average": 96,
        "activations": 100 - 80 + 10 + 50,
    }  # fmt: skip
    # The gate's 16 images through the largest block, 50 bytes each in float32, are more than that.
    gated = replace(lora, measured=16)
    assert training_memory(gated, TOY)["activations"] * gib == pytest.approx(16 * 50 / 2)


def test_memory_of_the_other_stages_by_hand() -> None:
    """SD 1.5 at 512 pixels: four maps of 128 x 512 x 512 floats are half a GiB for each image."""
    assert encoding_memory(SD15, 2**28, 2**30, 64, 2, "float32") == pytest.approx(1 + 4 + 2 * 0.5)
    assert encoding_memory(SD15, 2**28, 2**30, 64, 2, "float16") == pytest.approx(1 + 2 + 2 * 0.5)
    # Two images of a pair, means and deviations: 4 x 4 x 64 x 64 numbers of two bytes, 128 KiB.
    assert encoding_space(SD15, 64, 8192, "float16") == pytest.approx(1)
    # 986 M parameters: Kirstain et al. 2023 fine-tune a ViT-H/14.
    sizes = scoring_memory(("pickscore", "oracle"), None)
    assert sizes["pickscore"] == pytest.approx(4 * 0.986e9 / 2**30, rel=1e-3)
    assert sizes["oracle"] == 0
    half = scoring_memory(("pickscore",), "float16")["pickscore"]
    assert half == pytest.approx(sizes["pickscore"] / 2)


def test_what_is_not_known_is_told() -> None:
    """A plug-in's optimiser may keep anything: a plan must not pass a guess off as a count."""
    assert guesses(PLAIN) == []
    strange = replace(PLAIN, optimizer="lion", weights="some")
    assert guesses(strange) == [
        "the state of optimiser 'lion' as AdamW's",
        "weights 'some' as full",
    ]
    assert optimizer_bytes("lion", [(4, 8)]) == optimizer_bytes("adamw", [(4, 8)])


def configure(**changes: Any) -> TrainConfig:
    """The first arm of the default, changed."""
    spec = load_spec("mini")
    matrix = build_matrix(spec.model_copy(update={"train": spec.train | changes}), "0", "1")
    return matrix.arms[0].configs[0]


def test_a_run_is_read_from_its_settings() -> None:
    """The gate looks at 16 of 64 pairs at every fourth step; a frozen reference at none."""
    reference = {"name": "hard-copy", "tau": 4, "delta": 0.1, "subset": 16}
    lora = {"name": "lora", "rank": 3, "targets": ["to_q"]}
    run = training_of(configure(reference=reference, weights=lora, batch_size=64, accumulation=8))
    assert (run.gate, run.measured, run.images, run.follows) == (4.0, 16, 16, True)
    assert (run.weights, run.rank, run.targets) == ("lora", 3, ("to_q",))
    blind = configure(reference={**reference, "delta": None, "monitor": False})
    assert (training_of(blind).gate, training_of(blind).measured) == (0.0, 0)
    assert not training_of(configure()).follows


def test_optimiser_state() -> None:
    """Adafactor keeps the means of rows and columns: 4 + 8 of a 4 x 8 matrix, all of a vector."""
    shapes = [(4, 8), (38,)]
    assert optimizer_bytes("adamw", shapes) == 8 * 70
    assert optimizer_bytes("adamw-8bit", shapes) == 2 * 70
    assert optimizer_bytes("adafactor", shapes) == 4 * (4 + 8 + 38)


def test_operations_of_a_step() -> None:
    """3 pairs: 6 images x (policy 1 + backward 2 + reference 1), and 2 networks x 1 at the gate."""
    assert step_flops(PLAIN, TOY, 3) == 24_000
    assert step_flops(replace(PLAIN, gate=1.0), TOY, 3) == 26_000
    assert step_flops(replace(PLAIN, checkpointing=True), TOY, 3) == 30_000


def test_hours_follow_the_assumptions() -> None:
    """Half the speed, twice the hours; two devices, half the time."""
    spec = load_spec("mini")
    one, other = budget(spec, Assumptions(100.0, 1)), budget(spec, Assumptions(50.0, 2))
    assert other["gpu_hours"]["total"] == pytest.approx(2 * one["gpu_hours"]["total"])
    assert other["wall_hours"] == pytest.approx(one["wall_hours"])
    assert one["optimiser_steps"] == 4 * 3 * 100
    assert one["images"] == (1 + 4 * 3 + 2 * 3) * 100
    assert one["scores"] == one["images"] * len(spec.rewards)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A base model that is not there is planned for by its name, or refused if unknown."""
    path = tmp_path / "s.yaml"
    path.write_text("extends: mini\nname: s\nbase: somewhere/stable-diffusion-v1-5\n")
    assert run(["plan", str(path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["architecture"] == "sd15"
    assert plan["parameters"]["network"] == 859_520_964
    assert run(["plan", str(path), "--tflops", "50"]) == 0
    text = capsys.readouterr().out
    assert "859.5 M" in text
    assert "50 TFLOP/s" in text
    with pytest.raises(UserError, match="cannot plan for the base model 'elsewhere'"):
        find_architecture("elsewhere", None)


def test_the_plan_of_the_paper(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's 16 devices x 1 pair x 128 at 1e-8, and its beta in the terms of others."""
    monkeypatch.setenv("COLUMNS", "300")
    plan = budget(load_spec("paper-sd15"), Assumptions())
    assert plan["batch"]["DPO"] == {
        "pairs": 2048, "processes": 1, "parts": 512, "pairs_a_forward": 4, "lr": 2.048e-5,
        "lr_before_scaling": pytest.approx(1e-8),
    }  # fmt: skip
    many = load_spec("paper-sdxl").model_copy(update={"training": Training(processes=16)})
    batch = budget(many, Assumptions())["batch"]["DPO"]
    assert (batch["processes"], batch["parts"], batch["pairs_a_forward"]) == (16, 128, 1)
    assert plan["batch"]["DPO lr x5"]["lr_before_scaling"] == pytest.approx(5e-8)
    assert (plan["prompts"], plan["images"]) == (500, (45 + 7) * 2500)
    assert plan["optimiser_steps"] == 45 * 2000
    assert plan["beta"]["diffusers sd script"] == 2500
    assert run(["plan", "paper-sd15", "--devices", "16"]) == 0
    shown = capsys.readouterr().out
    assert "batch of DPO lr x5: 2,048 pairs a step = 1 process(es) x 512 part(s) x 4" in shown
    assert "lr 0.0001024 applied, with --scale_lr it would be 5e-08" in shown
    assert f"{plan['gpu_hours']['total'] / 16:,.0f} h on 16 device(s)" in shown


def test_memory_is_that_of_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several of them share the time and the batch; each holds all weights."""
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "s.yaml"
    path.write_text("extends: mini\nname: s\ntraining: {processes: 4}\n")
    one, four = (budget(load_spec(s), Assumptions()) for s in ("mini", str(path)))
    activations = one["training_gib"]["DPO"].pop("activations")
    assert four["training_gib"]["DPO"].pop("activations") == pytest.approx(activations / 4)
    for plan in (one, four):
        plan["training_gib"]["DPO"].pop("total")
    assert four["training_gib"]["DPO"] == one["training_gib"]["DPO"]
    assert four["wall_hours"] == pytest.approx(one["wall_hours"] / 4)
    assert budget(load_spec(str(path)), Assumptions(devices=2))["assumed"]["devices"] == 2
    assert run(["plan", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "memory of training, in each of 4 processes, GiB" in shown
    assert "no operations counted: rewards oracle" in shown


@pytest.mark.parametrize(
    ("name", "gib"), [("sd15-lora-1gpu", 24), ("sd15-lora-12gb", 12), ("sd3-lora", 24)]
)
def test_a_recipe_fits_the_gpu_that_it_is_for(name: str, gib: float) -> None:
    """Every stage, all rewards loaded, and 2 GiB for what a plan does not count."""
    plan = budget(load_spec(name), Assumptions())
    stages = [parts["total"] for parts in plan["training_gib"].values()]
    stages += [plan["encoding_gib"], plan["generation_gib"], plan["scoring_gib"]["all"]]
    assert max(stages) + 2 < gib
