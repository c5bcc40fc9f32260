"""A run that was interrupted anywhere and started again leaves the same bytes."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from trainers import checkpoint
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.pairs import Pairs
from trainers.errors import UserError
from trainers.metrics import StepMetrics
from trainers.record import CHECKPOINT, METRICS

Configure = Callable[..., TrainConfig]
Start = Callable[[str], Trainer]

Arms = dict[str, dict[str, Any]]

ACTIONS = {
    "frozen": {"none"},
    "gated": {"update", "freeze", "none"},
    "reinit": {"update", "reinit"},
}


class Interrupted(Exception):
    """Stands for anything that ends a process."""


def stop_at(step: int) -> Callable[[int, StepMetrics], None]:
    """Interrupt a run once a step is made, before its checkpoint is written."""

    def on_step(now: int, metrics: StepMetrics) -> None:
        if now == step:
            raise Interrupted

    return on_step


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def arms(configure: Configure, backbone: StableDiffusion, latents: Pairs) -> Arms:
    """A frozen reference, and two that are updated until their gate acts, at one of steps 3 to 5.

    The learning rate is far too high, so that the divergence grows. For the bound, run without a
    gate: it lies half way between the first of these steps to set a record and the record before.
    Whether one does is chance, and other releases of the libraries make other first weights: the
    first seed is taken with which it happens.
    """
    copied = {"name": "hard-copy", "tau": 1, "subset": 2, "delta": None}

    def run_without_a_gate(seed: int) -> tuple[dict[str, Any], list[float]]:
        rough = {"seed": seed, "optimizer": {"lr": 0.03}}
        free = Trainer(configure(reference=copied, **rough), backbone, latents)
        return rough, [free.advance().divergence or 0.0 for _ in range(5)]

    rough, bound = next(
        (rough, (seen[i] + max(0.0, *seen[:i])) / 2)
        for rough, seen in map(run_without_a_gate, range(6, 26))
        for i in range(2, 5)
        if seen[i] > max(0.0, *seen[:i])
    )
    gated = copied | {"delta": bound}
    return {
        "frozen": {"optimizer": {"lr": 1e-3, "warmup_steps": 4}, "caption_dropout": 0.3},
        "gated": rough | {"reference": gated | {"on_exceed": "freeze", "keep": "first_over"}},
        "reinit": rough | {"reference": gated | {"on_exceed": "reinit"}},
    }


@pytest.fixture(scope="module")
def start(configure: Configure, backbone: StableDiffusion, latents: Pairs, arms: Arms) -> Start:
    """A trainer of an arm at step 0, as a new process would make it."""
    return lambda arm: Trainer(configure(**arms[arm]), backbone, latents)


@pytest.fixture(scope="module")
def whole(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What each arm leaves when nothing happens to it."""
    out = {}
    for arm in ACTIONS:
        folder = tmp_path_factory.mktemp(arm)
        start(arm).run(folder)
        out[arm] = files(folder)
        lines = [json.loads(line) for line in out[arm][METRICS].splitlines()]
        assert {line["reference_action"] for line in lines} == ACTIONS[arm], lines
    return out


@pytest.mark.parametrize("stop", [2, 3, 6])
@pytest.mark.parametrize("arm", ["frozen", "gated"])
def test_resumed_is_uninterrupted(
    start: Start, whole: dict[str, dict[str, bytes]], tmp_path: Path, arm: str, stop: int
) -> None:
    """Network and log are the same bytes wherever the run was stopped.

    With a checkpoint every 2 of 6 steps, some stops lie before the first checkpoint, some just
    before one is written, some after the gate has shut, and the last after the last step. That the
    steps after a resume agree needs the optimiser's moments and the gate, not the weights alone.
    """
    first = start(arm)
    with pytest.raises(Interrupted):
        first.run(tmp_path, on_step=stop_at(stop), checkpoint_every=2)
    assert (tmp_path / CHECKPOINT).exists() == (stop > 2)
    second = start(arm)
    made: list[int] = []
    second.run(tmp_path, on_step=lambda step, _: made.append(step), checkpoint_every=3)
    assert made == list(range((stop - 1) // 2 * 2 + 1, 7))
    assert files(tmp_path) == whole[arm]


def test_interrupted_again_and_again(
    start: Start, whole: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """A stop after every step, each in a new process; and the reference had been put back."""
    for stop in range(1, 7):
        with pytest.raises(Interrupted):
            start("reinit").run(tmp_path, on_step=stop_at(stop), checkpoint_every=1)
    start("reinit").run(tmp_path, checkpoint_every=1)
    assert files(tmp_path) == whole["reinit"]


def test_interrupted_while_the_network_is_saved(
    start: Start,
    backbone: StableDiffusion,
    whole: dict[str, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a network on the disk: the last checkpoint is still there, and the rerun mends it."""

    def half(network: nn.Module, folder: Path) -> None:
        (folder / "unet").mkdir()
        (folder / "unet" / "config.json").write_text("{")
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "save_network", half)
        with pytest.raises(Interrupted):
            start("frozen").run(tmp_path, checkpoint_every=4)
    start("frozen").run(tmp_path, checkpoint_every=4)
    assert files(tmp_path) == whole["frozen"]


def test_interrupted_while_a_checkpoint_is_written(
    start: Start,
    whole: dict[str, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the second checkpoint only half is written: the first counts, and nothing is left over."""
    calls: list[str] = []

    def fail_second(tensors: dict[str, torch.Tensor], path: str, metadata: dict[str, str]) -> None:
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise Interrupted
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", fail_second)
        with pytest.raises(Interrupted):
            start("gated").run(tmp_path, checkpoint_every=2)
    assert checkpoint.read_state(tmp_path / CHECKPOINT)["step"] == 2
    start("gated").run(tmp_path, checkpoint_every=2)
    assert files(tmp_path) == whole["gated"]


def test_a_line_cut_short_by_a_crash_is_written_again(
    start: Start, whole: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Beyond the checkpoint the log may hold anything, half a line included."""
    with pytest.raises(Interrupted):
        start("frozen").run(tmp_path, on_step=stop_at(5), checkpoint_every=4)
    lines = whole["frozen"][METRICS].splitlines(keepends=True)
    (tmp_path / METRICS).write_bytes(b"".join(lines[:5]) + b'{"step": 6, "lo')
    start("frozen").run(tmp_path)
    assert files(tmp_path) == whole["frozen"]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_of_other_length_goes_on_only_where_it_is_the_same_so_far(
    schedule: str,
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    tmp_path: Path,
) -> None:
    def trainer(steps: int) -> Trainer:
        optimizer = {"lr": 1e-3, "schedule": schedule}
        return Trainer(configure(steps=steps, optimizer=optimizer), backbone, latents)

    cut, whole = tmp_path / "cut", tmp_path / "whole"
    trainer(5).run(whole)
    with pytest.raises(Interrupted):
        trainer(4).run(cut, on_step=stop_at(4), checkpoint_every=3)
    shorter = tmp_path / "shorter"
    shutil.copytree(cut, shorter)
    with pytest.raises(UserError, match="belongs to another run"):
        trainer(2).run(shorter)
    if schedule == "constant":
        trainer(5).run(cut)
        assert files(cut) == files(whole)
    else:
        with pytest.raises(UserError, match="belongs to another run"):
            trainer(5).run(cut)


def flip(path: Path) -> None:
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SEAL = f".{CHECKPOINT}.sha256"


@pytest.mark.parametrize("damage", [flip, cut, empty, lose, folder, pipe])
@pytest.mark.parametrize("name", [CHECKPOINT, METRICS, SEAL])
def test_what_was_damaged_is_made_again_and_told(
    start: Start,
    whole: dict[str, dict[str, bytes]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
) -> None:
    with pytest.raises(Interrupted):
        start("gated").run(tmp_path, on_step=stop_at(5), checkpoint_every=4)
    log = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(b"".join(log.splitlines(keepends=True)[:4]))
    capfd.readouterr()
    damage(tmp_path / name)
    made: list[int] = []
    start("gated").run(tmp_path, on_step=lambda step, _: made.append(step))
    told = capfd.readouterr().err
    assert files(tmp_path) == whole["gated"]
    if made[0] == 5:  # Nothing that counts was lost.
        assert (name, damage, told) == (SEAL, cut, "")
        return
    if (name, damage) != (CHECKPOINT, lose):
        assert told.count("\n") == 1 and "again" in told
        assert str(tmp_path / (METRICS if name == METRICS else CHECKPOINT)) in told


def test_a_checkpoint_with_a_nan_is_not_taken_up(
    start: Start, whole: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """A valid file that holds other numbers."""
    with pytest.raises(Interrupted):
        start("frozen").run(tmp_path, on_step=stop_at(5), checkpoint_every=4)
    path = tmp_path / CHECKPOINT
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        metadata = stream.metadata()
    tensors[next(iter(tensors))].flatten()[0] = math.nan
    save_file(tensors, path, metadata)
    start("frozen").run(tmp_path)
    assert files(tmp_path) == whole["frozen"]


def test_an_older_checkpoint_of_the_run_is_as_good(
    start: Start, whole: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        start("frozen").run(tmp_path, on_step=stop_at(3), checkpoint_every=2)
    older = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(Interrupted):
        start("frozen").run(tmp_path, on_step=stop_at(5), checkpoint_every=2)
    (tmp_path / CHECKPOINT).write_bytes(older)
    made: list[int] = []
    start("frozen").run(tmp_path, on_step=lambda step, _: made.append(step))
    assert made == [3, 4, 5, 6]
    assert files(tmp_path) == whole["frozen"]


def test_what_a_killed_writer_left_is_cleared_away(
    start: Start, whole: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    (tmp_path / f".{CHECKPOINT}.abcd1234.part").write_bytes(b"half")
    start("frozen").run(tmp_path)
    assert files(tmp_path) == whole["frozen"]


@pytest.fixture(scope="module")
def stopped(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs that were stopped after a checkpoint."""
    folders = {arm: tmp_path_factory.mktemp(f"stopped-{arm}") for arm in ("frozen", "gated")}
    for arm, folder in folders.items():
        with pytest.raises(Interrupted):
            start(arm).run(folder, on_step=stop_at(2), checkpoint_every=1)
    return folders


@pytest.mark.parametrize(
    ("theirs", "mine", "changes"),
    [
        ("gated", "frozen", {}),
        ("frozen", "gated", {}),
        ("frozen", "frozen", {"seed": 8}),
        ("frozen", "frozen", {"optimizer": {"lr": 0.03, "schedule": "linear"}}),
    ],
    ids=["reference left over", "reference missing", "other seed", "other schedule"],
)
def test_a_checkpoint_of_another_run_is_refused(
    configure: Configure,
    backbone: StableDiffusion,
    latents: Pairs,
    stopped: dict[str, Path],
    arms: Arms,
    tmp_path: Path,
    theirs: str,
    mine: str,
    changes: dict[str, Any],
) -> None:
    """Before anything of it is loaded, whatever it holds, and without touching the folder."""
    folder = tmp_path / "run"
    shutil.copytree(stopped[theirs], folder)
    before = files(folder)
    trainer = Trainer(configure(**(arms[mine] | changes)), backbone, latents)
    with pytest.raises(UserError, match="belongs to another run"):
        trainer.run(folder)
    assert files(folder) == before
    assert trainer.step == 0
    pairs = zip(trainer.policy.parameters(), trainer.init.parameters(), strict=True)
    assert all(torch.equal(policy, init) for policy, init in pairs)
