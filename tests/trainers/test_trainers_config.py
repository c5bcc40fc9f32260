"""The identity of a run."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from trainers.config import Optimizer, TrainConfig
from trainers.errors import UserError

Configure = Callable[..., TrainConfig]

LAW = {"name": "discounted", "gamma": 0.9, "intervals": 10}
FULL: dict[str, Any] = {
    "reference": {"name": "hard-copy", "tau": 16, "delta": 0.005},
    "timesteps": {"law": LAW, "scale": {"name": "inverse-sqrt-snr"}},
    "data": {"resolution": 64, "flip": 0.5},
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
    "optimizer.lr": 2e-3,
    "optimizer.warmup_steps": 5,
    "optimizer.betas": [0.9, 0.99],
    "optimizer.eps": 1e-7,
    "optimizer.weight_decay": 0.0,
    "optimizer.max_grad_norm": 2.0,
    "steps": 7,
    "batch_size": 4,
    "accumulation": 2,
    "caption_dropout": 0.2,
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
        place.clear()
    place[last] = value
    return copy


def test_every_field_is_part_of_the_identity(configure: Configure) -> None:
    """Any one field changed gives an identity of its own.

    The table above names every field; one that is added later must be added there.
    """
    base = configure(**FULL)
    resolved = base.model_dump(mode="json")
    assert sorted(paths(resolved)) == sorted(OTHER)
    ids = {TrainConfig.model_validate(changed(resolved, p, v)).run_id() for p, v in OTHER.items()}
    assert len(ids | {base.run_id()}) == len(OTHER) + 1


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


def test_a_run_is_rebuilt_from_its_json(configure: Configure) -> None:
    """The resolved configuration, as a manifest holds it, makes the same run again."""
    config = configure(**FULL)
    back = TrainConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert back == config
    assert back.run_id() == config.run_id()
    assert len(config.run_id()) == 64


def test_lr_schedule() -> None:
    """Warm-up over 4 steps: a quarter more at each, then constant; without it, constant at once."""
    warm = Optimizer(lr=0.4, warmup_steps=4)
    assert [warm.lr_at(s) for s in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert {Optimizer(lr=0.4).lr_at(s) for s in range(3)} == {0.4}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"accumulation": 0}, "accumulation"),
        ({"caption_dropout": 1.0}, "caption_dropout"),
        ({"optimizer": {"lr": 0}}, "lr"),
        ({"optimizer": {"lr": float("inf")}}, "lr"),
        ({"optimizer": {"lr": 1, "momentum": 1}}, "momentum"),
        ({"gpu": 1}, "gpu"),
    ],
)
def test_bad_fields(configure: Configure, changes: dict[str, Any], field: str) -> None:
    """Out of range or unknown."""
    with pytest.raises(ValidationError, match=field):
        configure(**changes)


def test_bad_slots(configure: Configure) -> None:
    """The error of the registry comes through as it is."""
    with pytest.raises(UserError, match="did you mean 'frozen'"):
        configure(reference={"name": "frozn"})
