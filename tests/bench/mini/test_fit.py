"""The training loop of what the miniature world ships: a run is a run, in parts or in processes."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.mini.build.everything import train_together
from bench.mini.build.fit import SHARDS, Schedule, fit
from bench.mini.build.vae import train_vae
from trainers.files import tree_hashes

STEPS = 3


def ignore(line: str) -> None:
    """Nobody listens."""


def problem() -> tuple[nn.Linear, Callable[[int, int], Tensor]]:
    """A model of one layer, and its error on two numbers that change from step to step."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(0.0)

    def loss_at(step: int, shard: int) -> Tensor:
        out: Tensor = model(torch.tensor([[float(step + 1)]])) - (10.0 * shard)
        return out.square().mean()

    return model, loss_at


def test_a_step_is_that_of_adamw_on_the_mean_of_the_shards(tmp_path: Path) -> None:
    model, loss_at = problem()
    other, other_loss = problem()
    schedule = Schedule(steps=1, lr=0.5, warmup=1, weight_decay=0.0)
    fit(model, copy.deepcopy(model), loss_at, schedule, tmp_path / "x.safetensors", ignore)
    optimizer = torch.optim.AdamW(other.parameters(), lr=0.5, weight_decay=0.0)
    (sum(other_loss(0, shard) for shard in range(SHARDS)) / SHARDS).backward()
    nn.utils.clip_grad_norm_(other.parameters(), 1.0)
    optimizer.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    schedule = Schedule(steps=100, lr=2.0, warmup=4, decay=0.5)
    assert [schedule.lr_at(step) for step in (0, 1, 3, 50)] == [0.5, 1.0, 2.0, 2.0]
    assert schedule.lr_at(75) == pytest.approx(1.0)
    assert schedule.lr_at(100) == 0.0


def test_a_stopped_run_goes_on_exactly(tmp_path: Path) -> None:
    def run(path: Path, schedule: Schedule, stop: int | None = None) -> dict[str, Tensor]:
        model, loss_at = problem()

        def loss(step: int, shard: int) -> Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return loss_at(step, shard)

        fit(model, copy.deepcopy(model), loss, schedule, path, ignore)
        return load_file(path)

    schedule = Schedule(steps=6, lr=0.1, warmup=2, save_every=2)
    whole = run(tmp_path / "whole.safetensors", schedule)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part.safetensors", schedule, stop=5)
    resumed = run(tmp_path / "part.safetensors", schedule)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, as every process has that :mod:`trainers.machine.spawn` starts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_processes_make_the_bytes_of_one(one_thread: None, tmp_path: Path) -> None:
    """The autoencoder as it ships, for a few steps; and one of them says how far it is.

    To the bit: in one process or two, a shard's gradient is made by the same kernels, on the
    same shapes and one thread, and the sum of two is the same in either order.
    """
    lines: list[str] = []
    alone, together = tmp_path / "alone", tmp_path / "together"
    train_vae(alone / "vae", alone / "work", 0, STEPS, lines.append)
    arguments = (together / "vae", together / "work", 0, STEPS)
    train_together(SHARDS, lines.append, train_vae, *arguments)
    assert tree_hashes(alone) == tree_hashes(together)
    assert "vae/diffusion_pytorch_model.safetensors" in tree_hashes(alone)
    assert [line.partition(" loss")[0] for line in lines] == [f"vae: step {STEPS}/{STEPS}"] * 2
