"""Errors of the pretrained network, computed once: the runs that take them keep their bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.machine.batches import split_batch
from trainers.machine.processes import ALONE, Processes
from trainers.machine.sharding import Sharding
from trainers.metrics import StepMetrics
from trainers.objectives import OBJECTIVES
from trainers.record import CHECKPOINT
from trainers.reference_errors import (
    alike,
    known_positions,
    reference_errors,
    shared_key,
    spared,
    spares_network,
)

Configure = Callable[..., TrainConfig]
Changes = dict[str, Any]
HARD_COPY = {"name": "hard-copy", "tau": 4, "delta": None, "subset": 2}
B = {"timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}}}

ALONE_OR_NOT_AT_ALL = {"sft", "csft", "mapo", "simpo", "dspo"}
"""Objectives that look at no reference, or at what it predicts."""
CASES: dict[str, Changes] = {
    **{
        name: {"objective": {"name": name}}
        for name in OBJECTIVES.names()
        if name not in ALONE_OR_NOT_AT_ALL
    },
    "B": B,
    "hard copy": {"reference": HARD_COPY},
    "moving average": {"reference": {"name": "ema", "decay": 0.5}},
    "hard copy at the last step": {"reference": {**HARD_COPY, "tau": 6}},
    "parts": {"batch_size": 4, "accumulation": 2},
    "means over parts": {
        "objective": {"name": "auto-beta"},
        "safeguard": {"name": "sdpo", "mu": 0.5},
        "batch_size": 4,
        "accumulation": 2,
    },
    "half precision": {"precision": "bfloat16", "weights": {"name": "full"}},
    "float16": {
        "precision": "float16",
        "weights": {"name": "full", "frozen_dtype": "float16"},
        "optimizer": {"lr": 1e-4},
    },
    "channels last": {"channels_last": True},
    "dropout": {"caption_dropout": 0.5},
    "an average": {"ema": {"decay": 0.5}},
    "an adapter": {"weights": {"name": "lora", "rank": 2}, "optimizer": {"lr": 1e-2}},
    "noises of their own": {"noising": {"name": "forward", "share": "timestep"}},
}


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def other(config: TrainConfig) -> Changes:
    """What a run may differ in that has the same errors: everything that comes after them."""
    images = config.objective.images
    objective = {"name": "ipo"} if images == 2 else {"name": "kto", "beta": 7.0}
    return {
        "objective": objective, "optimizer": {"lr": 1e-6}, "reference": {"name": "frozen"},
        "timesteps": {"law": config.timesteps.law.resolved(), "scale": {"name": "constant"}},
        "safeguard": {"name": "none"}, "ema": None, "steps": 7,
    }  # fmt: skip


@pytest.fixture
def known(backbone: StableDiffusion, latents: Pairs) -> Callable[[TrainConfig], Tensor]:
    """All errors that a run may take."""

    def make(config: TrainConfig) -> Tensor:
        last = known_positions(config)
        return torch.cat([*reference_errors(config, backbone, latents, ALONE, 0, last)], dim=1)

    return make


@pytest.mark.parametrize("case", CASES)
def test_a_run_keeps_its_bits(
    case: str,
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    known: Callable[[TrainConfig], Tensor],
    tmp_path: Path,
) -> None:
    """Network, log and record, by errors that another run of its group computed."""
    config = configure(**CASES[case])
    source = configure(**CASES[case] | other(config))
    assert len(alike([config, source], 1, "cpu")) == 1
    errors = known(source)
    assert errors.shape == (config.objective.images, 7 * config.batch_size)
    Trainer(config, backbone, latents).run(tmp_path / "loop")
    taken = Trainer(config, backbone, latents, known=errors)
    own = config.reference.own_network
    assert (taken.init is None, taken.reference is None) == (not own, not own)
    taken.run(tmp_path / "taken")
    assert files(tmp_path / "taken") == files(tmp_path / "loop")


@pytest.mark.parametrize(
    ("reference", "forwards"),
    [
        ({"name": "frozen"}, [1] * 6),
        (HARD_COPY, [1, 1, 1, 3, 2, 2]),
        ({"name": "ema"}, [1] + [2] * 5),
    ],
)
def test_the_reference_is_run_only_once_it_has_moved(
    reference: Changes,
    forwards: list[int],
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    known: Callable[[TrainConfig], Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forwards of each step, one of them the policy's; the hard copy is measured by two more."""
    config = configure(reference=reference)
    trainer = Trainer(config, backbone, latents, known=known(configure()))
    seen: list[int] = []
    predict = backbone.predict

    def spy(network: nn.Module, *inputs: Any) -> Tensor:
        seen[-1] += 1
        return predict(network, *inputs)

    monkeypatch.setattr(backbone, "predict", spy)
    for _ in range(6):
        seen.append(0)
        trainer.advance()
    assert seen == forwards


def test_a_stopped_run_goes_on_with_errors_or_without(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    known: Callable[[TrainConfig], Tensor],
    tmp_path: Path,
) -> None:
    """A checkpoint says nothing of where they came from."""
    config = configure()
    errors = known(config)
    Trainer(config, backbone, latents).run(tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(step: int, metrics: StepMetrics) -> None:
        if step == 3:
            raise Stopped

    for name, before, after in (
        ("on", None, errors),
        ("off", errors, None),
        ("as", errors, errors),
    ):
        with pytest.raises(Stopped):
            Trainer(config, backbone, latents, known=before).run(tmp_path / name, stop, 2)
        assert (tmp_path / name / CHECKPOINT).exists()
        Trainer(config, backbone, latents, known=after).run(tmp_path / name, None, 2)
        assert files(tmp_path / name) == files(tmp_path / "whole")


def test_errors_of_fewer_positions_leave_the_rest_to_the_loop(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    known: Callable[[TrainConfig], Tensor],
    tmp_path: Path,
) -> None:
    config = configure()
    errors = known(config)[:, :6]
    Trainer(config, backbone, latents).run(tmp_path / "loop")
    trainer = Trainer(config, backbone, latents, known=errors)
    assert trainer.init is not None
    trainer.run(tmp_path / "taken")
    assert files(tmp_path / "taken") == files(tmp_path / "loop")


def test_they_are_the_same_wherever_one_begins(
    configure: Configure, backbone: StableDiffusion, latents: Pairs,
    known: Callable[[TrainConfig], Tensor],
) -> None:  # fmt: skip
    """In pieces of a part of a batch; the last may reach beyond the end."""
    config = configure(batch_size=4, accumulation=2)
    pieces = [*reference_errors(config, backbone, latents, ALONE, 4, 9)]
    assert [tuple(piece.shape) for piece in pieces] == [(2, 2)] * 3
    assert torch.equal(torch.cat(pieces, dim=1), known(config)[:, 4:10])


def test_who_may_take_errors(configure: Configure) -> None:
    """Whoever looks at the pretrained network's errors alone, on inputs of no policy's."""
    for name in OBJECTIVES.names():
        expected = 0 if name in ALONE_OR_NOT_AT_ALL else 12
        assert known_positions(configure(objective={"name": name})) == expected, name
    none: list[Changes] = [
        {"objective": {"name": "kto", "offset": "mismatched"}},
        {"noising": {"name": "renoise"}},
        {"noising": {"name": "ddim-inversion"}},
        {"objective": {"name": "auto-beta", "anchor": 0.1}},
        {"compile": True},
        {"weights": {"name": "lora", "rank": 2}, "reference": HARD_COPY},
    ]
    assert [known_positions(configure(**changes)) for changes in none] == [0] * len(none)
    for tau, positions in ((1, 2), (5, 10), (6, 12), (99, 12)):
        moving = configure(reference={**HARD_COPY, "tau": tau})
        assert known_positions(moving) == positions
        assert not spares_network(moving, 12)
    frozen = configure()
    assert [spares_network(frozen, known) for known in (0, 11, 12, 13)] == [
        False,
        False,
        True,
        True,
    ]


def test_what_tells_errors_apart(configure: Configure) -> None:
    """All that a network is shown, how many rows at a time, and on what; nothing that follows."""

    def key(processes: int = 1, device: str = "cpu", **changes: Any) -> dict[str, Any]:
        config = configure(**{"batch_size": 4} | changes)
        split = split_batch(config.batch_size, config.accumulation, processes)
        return shared_key(config, split, device)

    same: list[Changes] = [
        other(configure()), {"steps": 99}, {"batch_size": 8, "accumulation": 2},
        {"processes": 2, "batch_size": 8}, {"accumulation": 1, "reference": HARD_COPY},
        {"timesteps": {"law": {"name": "uniform"}, "scale": {"name": "inverse-sqrt-snr"}}},
        {"gradient_checkpointing": True},
    ]  # fmt: skip
    assert [key(**changes) == key() for changes in same] == [True] * len(same)
    assert key(device="cuda:1") == key(device="cuda:0") != key()
    apart: list[Changes] = [
        {"seed": 8}, {"base_sha256": "2" * 64}, {"data_sha256": "2" * 64}, B, {"batch_size": 8},
        {"accumulation": 4}, {"processes": 2}, {"data": {"swap_labels": True}},
        {"caption_dropout": 0.1}, {"precision": "bfloat16"}, {"matmul": "tf32"},
        {"channels_last": True}, {"weights": {"name": "lora"}}, {"objective": {"name": "kto"}},
        {"noising": {"name": "forward", "share": "timestep"}},
        {"objective": {"name": "kto", "positive_ratio": 0.5}}, {"backbone": "stable-diffusion-xl"},
    ]  # fmt: skip
    keys = [str(key(**changes)) for changes in [{}, *apart]]
    assert len({*keys}) == len(keys)


def test_groups(configure: Configure) -> None:
    """Frozen ones count, the longest first; who can take no errors is in none."""
    dpo, long = configure(), configure(steps=9, optimizer={"lr": 1e-5})
    moving, sft, b = (
        configure(reference=HARD_COPY),
        configure(objective={"name": "sft"}),
        configure(**B),
    )
    groups = alike([dpo, moving, sft, b, long], 1, "cpu")
    assert groups == [(dpo, moving, long), (b,)]
    assert [spared(group) for group in groups] == [[long, dpo], [b]]
    assert alike([dpo, long], 2, "cpu") == [(dpo, long)]
    assert alike([], 1, "cpu") == []


def test_a_run_that_is_sharded_computes_its_own(
    configure: Configure, backbone: StableDiffusion, latents: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reference is gathered for each forward, by kernels that nobody has compared."""
    monkeypatch.setattr(Sharding, "shard", lambda self, network: None)
    processes = Processes(sharding=object.__new__(Sharding))
    trainer = Trainer(configure(), backbone, latents, processes, known=torch.zeros(2, 12))
    assert trainer.init is not None
    assert trainer.examples.known is None


def test_errors_that_are_not_finite_are_told_as_in_the_loop(
    configure: Configure, backbone: StableDiffusion, latents: Pairs
) -> None:
    errors = torch.full((2, 12), float("nan"))
    trainer = Trainer(configure(), backbone, latents, known=errors)
    with pytest.raises(Exception, match="nor is what the pretrained network predicts"):
        trainer.advance()
