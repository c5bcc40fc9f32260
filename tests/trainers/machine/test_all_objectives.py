"""Every objective with A and B, in two processes as in two parts of one."""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.encoder import Encoder
from trainers.data.encodings import CachedEncodings, EncodingCache
from trainers.data.index import Index
from trainers.data.pairs import Pairs
from trainers.data.settings import DataSettings
from trainers.machine.batches import BatchSplit
from trainers.machine.processes import ALONE, Processes, joined
from trainers.machine.spawn import send, spawn
from trainers.objectives import OBJECTIVES

INDEX = "pairs.parquet"
AB: dict[str, Any] = {
    "reference": {"name": "hard-copy", "tau": 2, "delta": 1.0, "subset": 2},
    "timesteps": {"law": {"name": "discounted"}, "scale": {"name": "inverse-sqrt-snr"}},
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"objective": {"name": name}} for name in OBJECTIVES.names()},
    "dspo of sdxl": {"objective": {"name": "dspo", "form": "sdxl", "near": 1e-4}},
    "kto of two": {"objective": {"name": "kto", "neighbours": 2}},
    "sdpo": {"safeguard": {"name": "sdpo", "mu": 0.5}},
}
Ends = dict[str, tuple[float, str]]
"""The last loss of each run, and the sha256 of its weights."""


def steps_of(config: TrainConfig) -> int:
    """Twenty where rows look at each other, or at the step before; else until A has acted."""
    return 20 if config.looks_ahead(BatchSplit(rows=4, parts=4)) else 3


def ends(
    configs: dict[str, TrainConfig], model: Path, folder: Path, processes: Processes
) -> Iterator[tuple[str, float, str]]:
    backbone, index = StableDiffusion(model), Index.load(folder / INDEX)
    encoder = Encoder(backbone, DataSettings(), "weights")
    data = Pairs(index, DataSettings(), CachedEncodings(index, EncodingCache(folder, encoder)))
    for name, config in configs.items():
        trainer = Trainer(config, backbone, data, processes)
        for _ in range(config.steps):
            loss = trainer.advance().loss
        digest = hashlib.sha256()
        for value in trainer.policy.state_dict().values():
            digest.update(value.numpy().tobytes())
        yield name, loss, digest.hexdigest()


def train(configs: dict[str, TrainConfig], model: Path, folder: Path) -> None:
    """What each of several processes does."""
    with joined() as processes:
        for end in ends(configs, model, folder, processes):
            send((processes.rank, *end))


@pytest.fixture(scope="module")
def here() -> Iterator[ModuleType]:
    """This file as another process can import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        yield importlib.import_module(Path(__file__).stem)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes that are started have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_end_where_two_parts_do(
    here: ModuleType, configure: Callable[..., TrainConfig], model_folder: Path, parquet: Path,
    backbone: StableDiffusion, open_pairs: Callable[..., Pairs], tmp_path: Path,
) -> None:  # fmt: skip
    """The same two gradients are added, so bit for bit; means over rows and states included."""
    open_pairs(parquet, backbone, tmp_path).index.save(tmp_path / INDEX)

    def configs(**split: int) -> dict[str, TrainConfig]:
        made = {
            n: configure(batch_size=4, **split, **AB, **changes) for n, changes in CASES.items()
        }
        return {n: c.model_copy(update={"steps": steps_of(c)}) for n, c in made.items()}

    parts = configs(accumulation=2)
    expected = {n: (loss, sha) for n, loss, sha in ends(parts, model_folder, tmp_path, ALONE)}
    found: tuple[Ends, Ends] = ({}, {})
    spawn(
        2, here.train, configs(), model_folder, tmp_path,
        on_message=lambda end: found[end[0]].update({end[1]: end[2:]}),
    )  # fmt: skip
    for each in found:
        assert {name: sha for name, (_, sha) in each.items()} == {
            name: sha for name, (_, sha) in expected.items()
        }
        for name, (loss, _) in each.items():
            assert loss == pytest.approx(expected[name][0], rel=1e-5), name
    assert len({sha for _, sha in expected.values()}) == len(CASES)
