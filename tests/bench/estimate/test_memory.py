"""Memory of every stage by hand."""

from typing import Any

import pytest

from bench.estimate.activations import Network, Saved
from bench.estimate.memory import (
    encoding_memory,
    encoding_space,
    guesses,
    scoring_memory,
    training_memory,
)
from bench.spec.matrix import build_matrix
from bench.spec.model import Scoring, load_spec
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.optimizers.adamw import AdamW
from trainers.optimizers.base import Optimizer

GIB = 2**30
TOY = Network({"a.to_q.weight": (4, 8), "b.weight": (38,)}, Saved(100, 80, 50, 10))
GATED = {"name": "hard-copy", "tau": 4, "delta": 0.1, "subset": 16}
LORA = {"name": "lora", "rank": 2, "targets": ["to_q"], "frozen_dtype": "bfloat16"}


def configure(**changes: Any) -> TrainConfig:
    """The first arm of the default, changed; one pair a step unless another number is given."""
    spec = load_spec("mini")
    train = spec.train | {"batch_size": 1} | changes
    matrix = build_matrix(spec.model_copy(update={"train": train}), "0", "1")
    return matrix.arms[0].configs[0]


def parts(config: TrainConfig) -> dict[str, int]:
    """In bytes."""
    return {name: round(size * GIB) for name, size in training_memory(config, TOY).items()}


def test_memory_by_hand() -> None:
    """70 weights: four bytes each for policy, init, gradient, eight for AdamW; two images."""
    assert parts(configure()) == {
        "policy": 280, "pretrained": 280, "reference": 0, "half-precision copy": 0,
        "gradients": 280, "optimiser": 560, "moving average": 0, "activations": 200,
    }  # fmt: skip
    small = {
        "weights": LORA, "precision": "bfloat16", "gradient_checkpointing": True,
        "ema": {"decay": 0.9}, "reference": {**GATED, "delta": None, "monitor": False},
    }  # fmt: skip
    assert configure(**small).weights.trained_shapes(TOY.shapes) == [(2, 8), (4, 2)]
    assert parts(configure(**small)) == {
        "policy": 96, "pretrained": 140, "reference": 96, "half-precision copy": 0,
        "gradients": 96, "optimiser": 192, "moving average": 96,
        "activations": 100 - 80 + 10 + 50,
    }  # fmt: skip
    # The gate's 16 images through the largest block, 50 bytes each in float32, are more than that.
    gated = configure(**small | {"reference": GATED, "batch_size": 16, "accumulation": 16})
    assert parts(gated)["activations"] == 16 * 50 / 2


def test_a_reference_and_a_cast_copy_are_stored_as_the_weights_say() -> None:
    """Full weights in bfloat16: init and reference in two bytes, the policy cast besides."""
    full = {"weights": {"name": "full", "frozen_dtype": "bfloat16"}, "precision": "bfloat16"}
    found = parts(configure(reference=GATED, **full))
    assert (found["pretrained"], found["reference"], found["half-precision copy"]) == (140,) * 3
    whole = {"weights": {**LORA, "frozen_dtype": "float32"}, "precision": "bfloat16"}
    found = parts(configure(reference=GATED, **whole))
    assert (found["pretrained"], found["reference"], found["half-precision copy"]) == (280, 96, 140)


def test_what_an_objective_does_not_need_takes_no_memory() -> None:
    """One image and no pretrained network for SFT; adapters lie on theirs. KTO has a reference."""
    sft, mapo, kto = (parts(configure(objective={"name": n})) for n in ("sft", "mapo", "kto"))
    assert (sft["pretrained"], sft["activations"]) == (0, 100)
    assert (mapo["pretrained"], mapo["activations"]) == (0, 200)
    assert (kto["pretrained"], kto["activations"]) == (280, 100)
    asked = configure(objective={"name": "mapo"}, reference=GATED)
    assert parts(asked) == mapo
    lora = parts(configure(objective={"name": "sft"}, weights=LORA, precision="bfloat16"))
    assert lora["pretrained"] == 140


def test_a_run_that_takes_its_references_errors_holds_no_second_network() -> None:
    """But for the weights that adapters lie on."""
    spared = training_memory(configure(), TOY, spared=True)
    assert spared == training_memory(configure(), TOY) | {"pretrained": 0}
    lora = configure(weights=LORA, precision="bfloat16")
    assert training_memory(lora, TOY, spared=True) == training_memory(lora, TOY)


def test_what_a_gate_measures() -> None:
    """It looks at 16 of 64 pairs at every fourth step; a frozen reference at none."""
    rule = configure(reference=GATED).reference
    assert (rule.measured_images(64), rule.measured_images(8), rule.acts_every) == (16, 8, 4)
    blind = configure(reference={**GATED, "delta": None, "monitor": False}).reference
    assert (blind.measured_images(64), blind.own_network) == (0, True)
    frozen = configure().reference
    assert (frozen.measured_images(64), frozen.own_network) == (0, False)


def test_optimiser_state() -> None:
    """Adafactor keeps the means of rows and columns: 4 + 8 of a 4 x 8 matrix, all of a vector."""
    state = {
        name: parts(configure(optimizer={"name": name, "lr": 1e-4}))["optimiser"]
        for name in ("adamw", "adamw-8bit", "adafactor")
    }
    assert state == {"adamw": 8 * 70, "adamw-8bit": 2 * 70, "adafactor": 4 * (4 + 8 + 38)}


def test_what_is_not_known_is_told() -> None:
    """A plug-in's optimiser may keep anything: a plan must not pass a guess off as a count."""

    class Lion(AdamW):
        name = "lion"
        state_bytes = Optimizer.state_bytes

    config = configure()
    assert guesses(config) == []
    strange = config.model_copy(update={"optimizer": Lion(lr=1e-4)})
    assert guesses(strange) == ["the state of optimiser 'lion' as AdamW's"]
    assert parts(strange)["optimiser"] == parts(config)["optimiser"]


def test_memory_of_the_other_stages_by_hand() -> None:
    """SD 1.5 at 512 pixels: four maps of 128 x 512 x 512 floats are half a GiB for each image."""
    sd15 = StableDiffusion.skeleton("stable-diffusion-v1-5", None)
    assert encoding_memory(sd15, 2**28, 2**30, 64, 2, "float32") == pytest.approx(1 + 4 + 2 * 0.5)
    assert encoding_memory(sd15, 2**28, 2**30, 64, 2, "float16") == pytest.approx(1 + 2 + 2 * 0.5)
    # Two images of a pair, means and deviations: 4 x 4 x 64 x 64 numbers of two bytes, 128 KiB.
    assert encoding_space(sd15, 64, 8192, "float16") == pytest.approx(1)
    # 986 M parameters: Kirstain et al. 2023 fine-tune a ViT-H/14.
    sizes = scoring_memory(("pickscore", "oracle"), Scoring())
    assert sizes["pickscore"] == pytest.approx(4 * 0.986e9 / 2**30, rel=1e-3)
    assert sizes["oracle"] == 0
    half = scoring_memory(("pickscore",), Scoring(dtype="float16"))["pickscore"]
    assert half == pytest.approx(sizes["pickscore"] / 2)
