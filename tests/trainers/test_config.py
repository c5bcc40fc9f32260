"""The identity of a run."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from trainers.config import TrainConfig
from trainers.errors import UserError

Configure = Callable[..., TrainConfig]

LAW = {"name": "discounted", "gamma": 0.9, "intervals": 10}
FULL: dict[str, Any] = {
    "reference": {"name": "hard-copy", "tau": 16, "delta": 0.005},
    "timesteps": {"law": LAW, "scale": {"name": "inverse-sqrt-snr"}},
    "data": {"resolution": 64, "flip": 0.5},
    "noising": {"name": "ddim-inversion"},
    "safeguard": {"name": "sdpo", "neighbours": 2},
    "weights": {"name": "lora", "rank": 8},
    "ema": {"decay": 0.999},
    "precision": "bfloat16",
}
ONE_VALUE = {"version", "weights.init", "weights.dropout", "optimizer.version"}
"""Fields that only a single value is allowed for."""
HALF: dict[str, Any] = {
    "precision": "float16",
    "weights": {"name": "full", "frozen_dtype": "float16"},
}
OTHER: dict[str, Any] = {
    "backbone": "other",
    "base_sha256": "2" * 64,
    "data_sha256": "3" * 64,
    "data.ties": "soft",
    "data.swap_labels": True,
    "data.per_prompt": 3,
    "data.dedup_prompts": True,
    "data.subset": 0.5,
    "data.resolution": 128,
    "data.resize": "lanczos",
    "data.crop": "random",
    "data.flip": 0.25,
    "data.independent_flip": True,
    "data.micro": "hard-coded",
    "data.precision": "float16",
    "data.seed": 1,
    "objective.name": "sft",
    "objective.beta": 101.0,
    "reference.name": "frozen",
    "reference.tau": 17,
    "reference.delta": None,
    "reference.on_exceed": "skip",
    "reference.keep": "first_over",
    "reference.subset": 15,
    "reference.monitor": False,
    "timesteps.law.name": "uniform",
    "timesteps.law.gamma": 0.8,
    "timesteps.law.intervals": 50,
    "timesteps.scale.name": "constant",
    "timesteps.scale.floor": None,
    "noising.name": "renoise",
    "noising.steps": 9,
    "noising.grid": "fixed",
    "noising.eta": 0.0,
    "safeguard.name": "none",
    "safeguard.mu": 0.5,
    "safeguard.neighbours": 1,
    "safeguard.epsilon": 0.0,
    "optimizer.name": "adafactor",
    "optimizer.lr": 2e-3,
    "optimizer.warmup_steps": 5,
    "optimizer.schedule": "linear",
    "optimizer.betas": [0.9, 0.99],
    "optimizer.eps": 1e-7,
    "optimizer.weight_decay": 0.0,
    "optimizer.max_grad_norm": 2.0,
    "steps": 7,
    "batch_size": 4,
    "accumulation": 2,
    "caption_dropout": 0.2,
    "weights.name": "full",
    "weights.frozen_dtype": "bfloat16",
    "weights.rank": 4,
    "weights.alpha": 16.0,
    "weights.targets": ["to_q"],
    "ema.decay": 0.99,
    "ema.every": 2,
    "ema.warmup": False,
    "ema.result": "policy",
    "precision": "float16",
    "matmul": "tf32",
    "channels_last": True,
    "compile": True,
    "seed": 8,
}
"""Another value for every field of a run."""


def paths(value: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of all leaves."""
    out: list[str] = []
    for key, item in value.items():
        out += paths(item, f"{prefix}{key}.") if isinstance(item, dict) else [prefix + key]
    return out


def changed(config: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with one leaf changed; a slot whose name changes loses its other settings."""
    copy: dict[str, Any] = json.loads(json.dumps(config))
    *above, last = path.split(".")
    place = copy
    for key in above:
        place = place[key]
    if last == "name":
        lr = place.get("lr")
        place.clear()
        if lr is not None:
            place["lr"] = lr
    place[last] = value
    return copy


def test_every_field_is_part_of_the_identity(configure: Configure) -> None:
    """Any one field changed gives an identity of its own.

    The table above names every field; one that is added later must be added there.
    """
    base = configure(**FULL)
    resolved = base.model_dump(mode="json")
    assert sorted(paths(resolved)) == sorted({*OTHER, *ONE_VALUE})
    ids = {TrainConfig.model_validate(changed(resolved, p, v)).run_id() for p, v in OTHER.items()}
    assert len(ids | {base.run_id()}) == len(OTHER) + 1


def test_what_is_off_is_in_no_identity(configure: Configure) -> None:
    """An empty slot, written out or not: so a later one changes the identity of no run before it.

    Whatever is on is there.
    """
    plain = configure()
    assert not {"noising", "safeguard"} & plain.model_dump(mode="json").keys()
    off = {"noising": {"name": "forward"}, "safeguard": {"name": "none"}}
    smooth: dict[str, Any] = {"name": "dpo", "beta": 100.0, "label_smoothing": 0.0, "robust": False}
    assert configure(**off, objective=smooth).run_id() == plain.run_id()
    on: list[dict[str, Any]] = [
        {"noising": {"name": "forward", "share": "timestep"}},
        {"noising": {"name": "renoise"}},
        {"data": {"label_noise": 0.1}},
        {"safeguard": {"name": "sdpo"}},
        {"objective": smooth | {"label_smoothing": 0.1}},
        {"objective": smooth | {"label_smoothing": 0.1, "robust": True}},
    ]
    ids = {configure(**changes).run_id() for changes in on}
    assert len(ids | {plain.run_id()}) == len(on) + 1
    for changes in on:
        config = configure(**changes)
        assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_what_has_no_meaning_makes_no_other_run(configure: Configure) -> None:
    """A reference that is not looked at, and a guard of pairs where images stand alone."""
    copied = {"reference": {"name": "hard-copy"}}
    guarded = {"safeguard": {"name": "sdpo"}}
    for name, unpaired in (("mapo", False), ("sft", True)):
        objective = {"objective": {"name": name}}
        plain = configure(**objective).run_id()
        assert configure(**objective, **copied).run_id() == plain
        assert (configure(**objective, **guarded).run_id() == plain) == unpaired
    kto = {"objective": {"name": "kto"}}
    assert configure(**kto, **guarded).run_id() == configure(**kto).run_id()
    assert configure(**kto, **copied).run_id() != configure(**kto).run_id()


def test_a_run_of_another_loop_is_refused(configure: Configure) -> None:
    with pytest.raises(ValidationError, match="version"):
        configure(version=1)


def backwards(value: Any) -> Any:
    """The same mapping with the keys of every level in reverse."""
    if isinstance(value, dict):
        return {k: backwards(value[k]) for k in reversed(value)}
    return value


def test_order_spelling_and_defaults_do_not_matter(configure: Configure) -> None:
    """Key order, 100 for 100.0, defaults written out: what counts is the resolved configuration."""
    config = configure(**FULL)
    resolved = config.model_dump(mode="json")
    assert TrainConfig.model_validate(backwards(resolved)).run_id() == config.run_id()
    assert configure(**FULL, objective={"beta": 100, "name": "dpo"}).run_id() == config.run_id()
    assert configure(**FULL, accumulation=1, caption_dropout=0).run_id() == config.run_id()
    named = {"name": "adamw", "lr": 1e-3, "schedule": "constant"}
    assert configure(**FULL, optimizer=named).run_id() == config.run_id()


def test_gradient_checkpointing_is_no_part_of_the_identity(configure: Configure) -> None:
    """It changes no bit of a run (see the tests of execution), so two such runs are one."""
    config = configure(**FULL, gradient_checkpointing=True)
    assert config.gradient_checkpointing
    assert config.run_id() == configure(**FULL).run_id()


def test_a_run_is_rebuilt_from_its_json(configure: Configure) -> None:
    """The resolved configuration, as a manifest holds it, makes the same run again."""
    config = configure(**FULL)
    back = TrainConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert back == config
    assert back.run_id() == config.run_id()
    assert len(config.run_id()) == 64


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulation": 0}, "accumulation"),
        ({"caption_dropout": 1.0}, "caption_dropout"),
        ({"gpu": 1}, "gpu"),
        ({"precision": "float64"}, "precision"),
        ({"ema": {"decay": 1}}, "decay"),
        ({"ema": {"every": 0}}, "every"),
        ({"weights": {"name": "full", "frozen_dtype": "float16"}}, "frozen_dtype must be float32"),
        (HALF | {"reference": {"name": "ema"}}, "rounds away"),
        (HALF | {"precision": "bfloat16"}, r"float32 or precision \(bfloat16\), got float16"),
    ],
)
def test_bad_fields(configure: Configure, changes: dict[str, Any], field: str) -> None:
    """Out of range, unknown, or at odds with another."""
    with pytest.raises(ValidationError, match=field):
        configure(**changes)


def test_what_half_precision_allows(configure: Configure) -> None:
    """A hard copy needs no small sums, and low-rank adapters are float32 whatever is frozen."""
    configure(**HALF, reference={"name": "hard-copy"})
    lora = {"name": "lora", "frozen_dtype": "float16"}
    configure(**(HALF | {"weights": lora}), reference={"name": "ema"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": {"name": "frozn"}}, "did you mean 'frozen'"),
        ({"optimizer": {"lr": 0}}, "optimizer 'adamw': lr: "),
        ({"optimizer": {"lr": float("inf")}}, "optimizer 'adamw': lr: "),
        ({"optimizer": {"lr": 1, "momentum": 1}}, "optimizer 'adamw': momentum: unknown key"),
        ({"optimizer": {"name": "adafactor"}}, "optimizer 'adafactor': lr: Field required"),
        ({"optimizer": {"name": "adafactor", "lr": 1, "betas": [0, 0]}}, "betas: unknown key"),
        ({"weights": {"name": "lora", "rank": 0}}, "weights 'lora': rank: "),
        ({"weights": {"name": "lora", "targets": []}}, "weights 'lora': targets: "),
        ({"weights": {"name": "lora", "dropout": 0.1}}, "dropout: .*must be 0: policy and ref"),
    ],
)
def test_bad_slots(configure: Configure, changes: dict[str, Any], message: str) -> None:
    """The error of the registry comes through as it is."""
    with pytest.raises(UserError, match=message):
        configure(**changes)
