"""What an identity is made of: everything that decides a result, and nothing else."""

from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
from pydantic import BaseModel

from bench.spec.matrix import build_matrix
from bench.spec.model import Generate, Scoring, load_spec, override, parse_spec
from bench.stages.generate import GenerateStage
from bench.stages.score import ScoreStage
from trainers.config import TrainConfig

SPEC: dict[str, Any] = load_spec("mini").model_dump(mode="json")


def run_ids(raw: dict[str, Any]) -> list[str]:
    found = build_matrix(parse_spec(raw, "here"), "0" * 64, "1" * 64)
    return [config.run_id() for arm in found.arms for config in arm.configs.values()]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("title", "Another"),
        ("label", "other"),
        ("base", "another/place"),
        ("data", "another.parquet"),
        ("encoding", {"cache": False, "batch_size": 7}),
        ("prompts", "mini-dev"),
        ("prompt_limit", 3),
        ("generate", {"steps": 3, "seed": 4}),
        ("rewards", [SPEC["primary"]]),
        ("statistics", {"alpha": 0.01}),
        ("cost", {"pair": 1, "image": 1, "score": 1, "start": 1}),
        ("quick", {"seeds": [9]}),
        ("components.A.label", "other"),
    ],
)
def test_names_prompts_and_analysis_do_not_enter_a_run(key: str, value: Any) -> None:
    changed = override(SPEC, {key: value})
    assert changed != SPEC
    assert run_ids(changed) == run_ids(SPEC)


def test_names_of_arms_do_not_enter_a_run() -> None:
    renamed = {**SPEC, "objectives": {"Other": SPEC["objectives"]["DPO"]}}
    assert run_ids(renamed) == run_ids({**SPEC, "objectives": {"DPO": SPEC["objectives"]["DPO"]}})


def test_the_order_of_components_does_not_enter_a_run() -> None:
    turned = {**SPEC, "components": dict(reversed(SPEC["components"].items()))}
    assert list(turned["components"]) != list(SPEC["components"])
    assert set(run_ids(turned)) == set(run_ids(SPEC))


def test_a_default_that_is_written_out_changes_nothing() -> None:
    written = override(SPEC, {"train.caption_dropout": 0.0, "train.optimizer.eps": 1e-8})
    assert run_ids(written) == run_ids(SPEC)


CONFIG: dict[str, Any] = {
    "backbone": "stable-diffusion",
    "base_sha256": "0" * 64,
    "data_sha256": "1" * 64,
    "objective": {"name": "dpo", "beta": 5000},
    "reference": {"name": "hard-copy", "tau": 16},
    "timesteps": {"law": {"name": "discounted"}, "scale": {"name": "constant"}},
    "optimizer": {"lr": 1e-4},
    "steps": 10,
    "batch_size": 4,
    "seed": 0,
}

CHANGES: dict[str, Any] = {
    "backbone": "other",
    "base_sha256": "2" * 64,
    "data_sha256": "2" * 64,
    "data": {"ties": "soft"},
    "objective": {"name": "dpo", "beta": 5001},
    "reference": {"name": "hard-copy", "tau": 17},
    "timesteps.law": {"name": "discounted", "gamma": 0.8},
    "timesteps.scale": {"name": "inverse-sqrt-snr"},
    "optimizer": {"name": "adamw", "lr": 2e-4},
    "noising": {"name": "renoise"},
    "safeguard": {"name": "sdpo"},
    "weights": {"name": "lora"},
    "ema": {"decay": 0.9},
    "precision": "bfloat16",
    "matmul": "tf32",
    "channels_last": True,
    "compile": True,
    "steps": 11,
    "batch_size": 8,
    "accumulation": 2,
    "caption_dropout": 0.1,
    "seed": 1,
}


def run_id(raw: dict[str, Any]) -> str:
    return TrainConfig.model_validate(raw).run_id()


@pytest.mark.parametrize(("key", "value"), CHANGES.items(), ids=CHANGES)
def test_every_field_of_training_enters_a_run(key: str, value: Any) -> None:
    assert run_id(override(CONFIG, {key: value})) != run_id(CONFIG)


@pytest.mark.parametrize(
    "setting",
    [
        {"name": "adafactor", "lr": 1e-4},
        {"lr": 1e-4, "warmup_steps": 1},
        {"lr": 1e-4, "schedule": "linear"},
        {"lr": 1e-4, "betas": [0.9, 0.99]},
        {"lr": 1e-4, "eps": 1e-7},
        {"lr": 1e-4, "weight_decay": 0.0},
        {"lr": 1e-4, "max_grad_norm": 2.0},
    ],
)
def test_every_setting_of_the_optimizer_enters_a_run(setting: dict[str, Any]) -> None:
    assert run_id({**CONFIG, "optimizer": setting}) != run_id(CONFIG)


def test_no_field_of_training_is_forgotten_above() -> None:
    def leaves(model: type[BaseModel], prefix: str) -> set[str]:
        found: set[str] = set()
        for name, field in model.model_fields.items():
            # What changes no bit and is in no dump; and what only has one value.
            if field.exclude or (get_origin(field.annotation) is Literal and name == "version"):
                continue
            kind = field.annotation
            nested = isinstance(kind, type) and kind.__module__ == TrainConfig.__module__
            if nested and issubclass(kind, BaseModel):
                found |= leaves(kind, f"{prefix}{name}.")
            else:
                found.add(prefix + name)
        return found

    assert leaves(TrainConfig, "") == set(CHANGES)


@pytest.mark.parametrize(
    "reference",
    [
        {"name": "frozen"},
        {"name": "hard-copy", "tau": 16, "delta": None},
        {"name": "hard-copy", "tau": 16, "subset": 8},
        {"name": "hard-copy", "tau": 16, "keep": "first_over"},
    ],
)
def test_every_setting_of_a_plug_in_enters_a_run(reference: dict[str, Any]) -> None:
    assert run_id({**CONFIG, "reference": reference}) != run_id(CONFIG)


def images(**changes: Any) -> GenerateStage:
    fields: dict[str, Any] = {
        "label": "images",
        "settings": Generate(),
        "first_index": 0,
        "prompts": (("a", "a cat"), ("b", "a dog")),
        "backbone": "stable-diffusion",
        "base": Path("here"),
        "base_sha256": "0" * 64,
        "train": None,
    }
    return GenerateStage(**(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "other"},
        {"base": Path("elsewhere")},
        {"prompts": (("c", "a cat"), ("d", "a dog"))},
        {"settings": Generate(batch_size=1)},
        {"settings": Generate(device="cuda")},
    ],
)
def test_names_places_and_execution_do_not_enter_images(changes: dict[str, Any]) -> None:
    assert images(**changes).id == images().id


@pytest.mark.parametrize(
    "changes",
    [
        {"first_index": 1},
        {"prompts": (("a", "a cat"), ("b", "a dog "))},
        {"backbone": "stable-diffusion-xl"},
        {"base_sha256": "1" * 64},
        *(
            {"settings": Generate.model_validate({name: value})}
            for name, value in (
                ("steps", 51), ("guidance", 7.6), ("eta", 0.1), ("images_per_prompt", 2),
                ("seed", 1), ("sampler", "euler"), ("height", 64), ("width", 64),
                ("dtype", "bfloat16"),
            )
        ),
    ],
)  # fmt: skip
def test_whatever_decides_an_image_enters_it(changes: dict[str, Any]) -> None:
    assert images(**changes).id != images().id


def test_scores_are_identified_by_images_and_signature() -> None:
    one = ScoreStage("label", "clip", "clip|1", images(), Scoring())
    assert ScoreStage("other", "name", "clip|1", images(), Scoring()).id == one.id
    assert ScoreStage("label", "clip", "clip|2", images(), Scoring(device="cuda")).id != one.id
    assert ScoreStage("label", "clip", "clip|1", images(first_index=1), Scoring()).id != one.id
