"""``bench plan``: counts, batches and betas, and that each recipe fits the GPU that it is for."""

import json
from pathlib import Path

import pytest

from bench.assets import model_folder
from bench.cli import run
from bench.estimate.plan import budget
from bench.spec.model import Training, load_spec
from trainers.errors import UserError


def test_counts_of_the_default() -> None:
    """Five arms, three seeds, 160 steps; images of each, of the base model, six controls."""
    spec = load_spec("mini")
    plan = budget(spec)
    assert plan["optimiser_steps"] == 5 * 3 * 160
    assert plan["images"] == (1 + 5 * 3 + 2 * 3) * 100
    assert plan["scores"] == plan["images"] * len(spec.rewards)


def test_arms_that_share_errors_of_the_reference() -> None:
    """DPO and its controls of beta and rate; A's first 16 steps beside. B's law is another."""
    spec = load_spec("mini-table-3")
    plan = budget(spec)
    arms = ["DPO", "DPO+A", "DPO lr x5", "DPO beta/5"]
    assert plan["reference_errors"] == [{"arms": arms, "positions": 5 * 160 * 32}]
    held = {arm: parts["pretrained"] > 0 for arm, parts in plan["training_gib"].items()}
    spared = {"DPO", "DPO beta/5", "DPO lr x5"}
    assert held == {arm: arm not in spared for arm in held}
    off = budget(spec.model_copy(update={"training": Training(share_reference=False)}))
    assert off["reference_errors"] == []
    assert all(parts["pretrained"] > 0 for parts in off["training_gib"].values())
    alone = spec.model_copy(update={"controls": {}, "comparisons": ()})
    assert budget(alone)["reference_errors"] == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A base model that is not there is planned for by its name, or refused if unknown."""
    path = tmp_path / "s.yaml"
    path.write_text("extends: mini\nname: s\nbase: somewhere/stable-diffusion-v1-5\n")
    assert run(["plan", str(path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["architecture"] == "stable-diffusion-v1-5"
    assert plan["parameters"]["network"] == 859_520_964
    assert run(["plan", str(path)]) == 0
    assert "859.5 M" in capsys.readouterr().out


def test_a_folder_needs_no_weights(tmp_path: Path) -> None:
    """Its configs give what they give beside the weights; a part that it lacks is named."""
    spec, model = load_spec("mini"), tmp_path / "model"
    whole = model_folder(spec.base)
    for config in whole.glob("*/config.json"):
        (model / config.parent.name).mkdir(parents=True)
        (model / config.parent.name / "config.json").write_bytes(config.read_bytes())
    bare = spec.model_copy(update={"base": str(model)})
    same = ("parameters", "training_gib", "generation_gib", "encodings", "latent_side")
    plan, expected = budget(bare), budget(spec)
    assert {key: plan[key] for key in same} == {key: expected[key] for key in same}
    (model / "vae" / "config.json").unlink()
    with pytest.raises(UserError, match=r"there is no .*vae/config\.json: give a folder"):
        budget(bare)


def test_a_sampler_that_does_not_fit_is_refused() -> None:
    spec = load_spec("paper-sd15")
    wrong = spec.generate.model_copy(update={"sampler": "dimm"})
    with pytest.raises(UserError, match="sampler 'dimm' cannot sample from backbone"):
        budget(spec.model_copy(update={"generate": wrong}))


def test_the_plan_of_the_paper(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's 16 devices x 1 pair x 128 at 1e-8, and its beta in the terms of others."""
    monkeypatch.setenv("COLUMNS", "300")
    plan = budget(load_spec("paper-sd15"))
    assert plan["batch"]["DPO"] == {
        "pairs": 2048, "processes": 1, "parts": 512, "pairs_a_forward": 4, "lr": 2.048e-5,
        "lr_before_scaling": pytest.approx(1e-8),
    }  # fmt: skip
    many = load_spec("paper-sdxl").model_copy(update={"training": Training(processes=16)})
    batch = budget(many)["batch"]["DPO"]
    assert (batch["processes"], batch["parts"], batch["pairs_a_forward"]) == (16, 128, 1)
    assert plan["batch"]["DPO lr x5"]["lr_before_scaling"] == pytest.approx(5e-8)
    assert (plan["prompts"], plan["images"]) == (500, (45 + 7) * 2500)
    assert plan["optimiser_steps"] == 45 * 2000
    assert plan["beta"]["diffusers sd script"] == 2500
    assert run(["plan", "paper-sd15", "--devices", "16"]) == 0
    shown = capsys.readouterr().out
    assert "batch of DPO lr x5: 2,048 pairs a step = 1 process(es) x 512 part(s) x 4" in shown
    assert "lr 0.0001024 applied, with --scale_lr it would be 5e-08" in shown


def test_memory_is_that_of_a_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several of them share the time and the batch; each holds all weights."""
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "s.yaml"
    path.write_text("extends: mini\nname: s\ntraining: {processes: 4}\n")
    one, four = (budget(load_spec(s)) for s in ("mini", str(path)))
    activations = one["training_gib"]["DPO"].pop("activations")
    assert four["training_gib"]["DPO"].pop("activations") == pytest.approx(activations / 4)
    for plan in (one, four):
        plan["training_gib"]["DPO"].pop("total")
    assert four["training_gib"]["DPO"] == one["training_gib"]["DPO"]
    assert (one["devices"], four["devices"]) == (1, 4)
    assert budget(load_spec(str(path)), devices=2)["devices"] == 2
    assert run(["plan", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "memory of training, in each of 4 processes, GiB" in shown
    assert "time not known of encoding, training DPO" in shown


@pytest.mark.parametrize(
    ("name", "gib"), [("sd15-lora-1gpu", 24), ("sd15-lora-12gb", 12), ("sd3-lora", 24)]
)
def test_a_recipe_fits_the_gpu_that_it_is_for(name: str, gib: float) -> None:
    """Every stage, all rewards loaded, and 2 GiB for what a plan does not count."""
    plan = budget(load_spec(name))
    stages = [parts["total"] for parts in plan["training_gib"].values()]
    stages += [plan["encoding_gib"], plan["generation_gib"], plan["scoring_gib"]["all"]]
    assert max(stages) + 2 < gib
