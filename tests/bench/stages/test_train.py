"""Several processes train the same run: one batch, one gate, one set of files."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from safetensors.torch import load_file

from bench.experiment.prepare import prepare
from bench.experiment.single import announce
from bench.spec.model import override, parse_spec
from bench.stages import prefix
from bench.stages.store import Store
from bench.stages.train import TrainStage, train
from trainers import sealed
from trainers.errors import UserError
from trainers.machine.batches import split_batch
from trainers.machine.processes import joined
from trainers.machine.sharding import sharding_of
from trainers.metrics import StepMetrics
from trainers.record import CHECKPOINT, METRICS

GATED = {"name": "hard-copy", "tau": 1, "subset": 4, "delta": 0.0015}
FSDP = {
    "distributed_type": "FSDP",
    "fsdp_config": {"fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"},
    "mixed_precision": "no",
    "num_machines": 1,
    "num_processes": 2,
}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"

Files = dict[str, bytes]
Make = Callable[..., TrainStage]


def on_every_step(step: int, metrics: StepMetrics) -> None:
    """Nobody listens."""


class Interrupted(Exception):
    """Stands for anything that ends a run."""


def train_stage(
    stage: TrainStage, folder: Path, store: Store, on_step: Callable[[int, StepMetrics], None]
) -> None:
    """As ``bench train`` does, into a folder outside of the store."""
    training = stage.training.model_copy(update={"keep_checkpoint": False})
    train(stage.config, stage.base, stage.encode.stored(store), training, folder, on_step)


def stop_at(last: int) -> Callable[[int, StepMetrics], None]:
    def on_step(step: int, metrics: StepMetrics) -> None:
        if step >= last:
            raise Interrupted

    return on_step


def files(folder: Path) -> Files:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def steps(found: Files) -> list[dict[str, Any]]:
    return [json.loads(line) for line in found[METRICS].splitlines()]


def agree(one: Files, other: Files, folder: Path, weights: str = WEIGHTS, lr: float = 2e-4) -> None:
    """Every figure of every step, and all weights, to rounding; and what the gate did, exactly.

    AdamW divides by the size of a gradient: where that is next to nothing, so is what is left of
    it after rounding, and a weight may go anywhere within a step of its learning rate. Such weights
    are few: all of a tensor together are within a hundredth of the way that AdamW could have moved
    them, which no lost or doubled gradient is.
    """
    assert one.keys() == other.keys()
    assert len(steps(one)) == len(steps(other))
    for a, b in zip(steps(one), steps(other), strict=True):
        assert a.pop("reference_action") == b.pop("reference_action")
        assert a.pop("timestep_deciles") == b.pop("timestep_deciles")
        assert (a["divergence"] is None) == (b["divergence"] is None)
        for name in a:
            assert a[name] is None or a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-6), name
    tensors = []
    for name, found in (("one", one), ("other", other)):
        path = folder / f"{name}.safetensors"
        path.write_bytes(found[weights])
        tensors.append(load_file(path))
    for name, tensor in tensors[0].items():
        apart = (tensors[1][name] - tensor).double().square().mean().sqrt()
        assert float(apart) < 0.01 * lr * len(steps(one)), name


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def make(store: Store, tiny_experiment: Callable[[], dict[str, Any]]) -> Make:
    """A training run of 6 steps in two parts each, over 24 pairs; keys of ``train`` changed."""

    def stage(processes: int, **changes: Any) -> TrainStage:
        train = {"data.subset": 24, "steps": 6, "batch_size": 8, "reference": GATED, **changes}
        raw = override(tiny_experiment(), {"train.data": {}, "train.ema": {"decay": 0.5}})
        raw = override(raw, {f"train.{key}": value for key, value in train.items()})
        raw |= {"components": {}, "training": {"processes": processes, "checkpoint_every": 2}}
        found = prepare(parse_spec(raw, "tiny")).sets[1].images.train
        assert found is not None
        found.encode.execute(store, lambda images: None)
        return found

    return stage


@pytest.fixture(scope="module")
def run(make: Make, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Files]:
    """What a run leaves."""

    def leave(processes: int, **changes: Any) -> Files:
        folder = tmp_path_factory.mktemp("run")
        train_stage(make(processes, **changes), folder, store, on_every_step)
        return files(folder)

    return leave


@pytest.fixture(scope="module")
def alone(run: Callable[..., Files]) -> Files:
    return run(1)


@pytest.fixture(scope="module")
def together(run: Callable[..., Files]) -> Files:
    return run(2)


def test_two_processes_train_the_run_of_one(alone: Files, together: Files, tmp_path: Path) -> None:
    assert {step["reference_action"] for step in steps(alone)} == {"update", "freeze", "none"}
    agree(alone, together, tmp_path)


OVER_THE_BATCH: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an offset": {"objective": {"name": "kto", "offset": "mismatched"}},
    "a factor and a state": {
        "objective": {"name": "auto-beta", "anchor": 0.1},
        "safeguard": {"name": "sdpo"},
    },
}


@pytest.mark.parametrize("means", OVER_THE_BATCH)
def test_parts_that_add_up_alike_leave_the_same_bytes(
    means: str, run: Callable[..., Files]
) -> None:
    """Two processes with a part each add the same two gradients as one process with two parts.

    Also where each row looks at means over all of them.
    """
    settings = OVER_THE_BATCH[means] | {"accumulation": 2}
    assert run(2, **settings) == run(1, **settings)


@pytest.mark.parametrize("means", [name for name in OVER_THE_BATCH if name != "nothing"])
def test_means_over_the_batch_in_two_processes(
    means: str, run: Callable[..., Files], tmp_path: Path
) -> None:
    """As in one process and one part, which needs no pass ahead."""
    settings = OVER_THE_BATCH[means]
    agree(run(1, **settings), run(2, **settings), tmp_path)


def test_adapters_in_two_processes(run: Callable[..., Files], tmp_path: Path) -> None:
    lora = {"weights": {"name": "lora", "rank": 2}, "optimizer": {"lr": 1e-2}}
    agree(run(1, **lora), run(2, **lora), tmp_path, "pytorch_lora_weights.safetensors", lr=1e-2)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_stopped_run_goes_on_exactly_in_every_process(
    sharded: bool,
    make: Make,
    run: Callable[..., Files],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The same bytes as the undisturbed run of as many processes; with FSDP, too."""
    if sharded:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_VERSION", "2")
    long = {"steps": 10 if sharded else 16, "batch_size": 2}
    resumed: list[int] = []
    with pytest.raises(Interrupted):
        train_stage(make(2, **long), tmp_path, store, stop_at(3))
    assert (tmp_path / CHECKPOINT).is_file()
    train_stage(make(2, **long), tmp_path, store, lambda step, _: resumed.append(step))
    assert resumed == list(range(resumed[0], long["steps"] + 1))
    assert resumed[0] in range(3, long["steps"], 2)
    assert files(tmp_path) == run(2, **long)


def learned(stage: TrainStage, store: Store) -> tuple[Files, list[int]]:
    """What a stage of a store leaves, and the steps that it made."""
    made: list[int] = []
    stage.encode.execute(store, lambda images: None)
    stage.execute(store, made.append)
    hidden = {"status.json"}
    found = files(stage.output(store))
    return {k: v for k, v in found.items() if k not in hidden and k[0] != "."}, made


@pytest.mark.parametrize("processes", [1, 2])
def test_more_steps_go_on_from_fewer(processes: int, make: Make, tmp_path: Path) -> None:
    """To the bytes of a run that began at 0; from the longest there is, and never from a longer."""
    undisturbed, made = learned(make(processes, steps=7), Store(tmp_path / "other"))
    assert made == [1, 2, 3, 4, 5, 6, 7]
    store = Store(tmp_path / "store")
    for steps, expected in ((3, [1, 2, 3]), (5, [4, 5]), (4, [4]), (7, [6, 7])):
        found, made = learned(make(processes, steps=steps), store)
        assert made == expected
        assert CHECKPOINT not in found
    assert found == undisturbed


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"lr": 1e-4, "schedule": "linear"}},
        {"optimizer": {"lr": 1e-4, "schedule": "cosine"}},
    ],
)
def test_a_schedule_that_falls_to_the_end_begins_at_0(
    changes: dict[str, Any], make: Make, tmp_path: Path
) -> None:
    for steps in (2, 3):
        _, made = learned(make(1, steps=steps, **changes), Store(tmp_path))
        assert made == list(range(1, steps + 1))


def test_a_kill_before_the_record_of_the_store_loses_nothing(make: Make, tmp_path: Path) -> None:
    """The run is whole then, and the end of a shorter one must not be laid over it."""
    store = Store(tmp_path)
    learned(make(1, steps=2), store)
    stage = make(1, steps=3)
    found, _ = learned(stage, store)
    (stage.output(store) / "status.json").unlink()
    assert learned(stage, Store(tmp_path)) == (found, [])


def test_pairs_that_were_encoded_otherwise_begin_at_0(make: Make, tmp_path: Path) -> None:
    store = Store(tmp_path)
    learned(make(1, steps=2), store)
    (kept,) = (tmp_path / "pool" / "train").iterdir()
    kept.rename(kept.with_name("0" * 16))  # As if from another encoding of the same pairs.
    assert learned(make(1, steps=3), store)[1] == [1, 2, 3]


def test_another_setting_begins_at_0(make: Make, tmp_path: Path) -> None:
    learned(make(1, steps=2), Store(tmp_path))
    _, made = learned(make(1, steps=3, objective={"name": "dpo", "beta": 6}), Store(tmp_path))
    assert made == [1, 2, 3]


@pytest.mark.parametrize("name", [METRICS, CHECKPOINT, f".{CHECKPOINT}.sha256"])
def test_a_beginning_that_was_changed_is_told_and_not_taken(
    name: str, make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next longest is, and the changed one is cleared away."""
    undisturbed, _ = learned(make(1, steps=4), Store(tmp_path / "other"))
    store = Store(tmp_path / "store")
    learned(make(1, steps=2), store)
    learned(make(1, steps=3), store)
    (path,) = (store.root / "pool" / "train").rglob(f"3/{name}")
    path.write_bytes(path.read_bytes()[:-9])
    capfd.readouterr()
    assert learned(make(1, steps=4), store) == (undisturbed, [3, 4])
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "is not what was written there" in told
    assert not (path.parent / CHECKPOINT).exists()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_kill_while_the_end_is_kept_loses_nothing(
    after: int, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of the files that are moved, of which the checkpoint counts."""
    stage, longer, store = make(1, steps=2), make(1, steps=3), Store(tmp_path / "store")
    undisturbed, _ = learned(longer, Store(tmp_path / "other"))
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Interrupted

    with monkeypatch.context() as patch:
        for module, name in ((prefix, "_copy"), (prefix, "move"), (sealed.os, "link"),
                             (sealed, "drop")):  # fmt: skip
            real = getattr(module, name)
            patch.setattr(module, name, lambda *a, real=real: (stop(), real(*a))[1])
        with pytest.raises(Interrupted):
            learned(stage, store)
    learned(stage, Store(store.root))
    found, made = learned(longer, Store(store.root))
    assert found == undisturbed
    assert made == [3]
    assert len(list((store.root / "pool").rglob("*/2/*"))) == 3  # Log, checkpoint and seal.
    assert not list(stage.output(store).rglob("*checkpoint*"))


@pytest.mark.parametrize("processes", [1, 2])
def test_encodings_that_were_damaged_are_made_again(
    processes: int,
    make: Make,
    run: Callable[..., Files],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """While a run reads them: a bit of every row that it may come to, and of the prompts."""
    stage, store = make(processes), Store(tmp_path / "store")
    stage.encode.execute(store, lambda images: None)
    for path in (store.root / "encodings").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        for place in range(len(data) // 2, len(data), 64):
            data[place] ^= 1
        path.write_bytes(data)
    capfd.readouterr()
    (tmp_path / "out").mkdir()
    train_stage(stage, tmp_path / "out", store, on_every_step)
    assert files(tmp_path / "out") == run(processes)
    assert capfd.readouterr().err.count("it is made again") >= 2
    assert store.verify_pools() == 2


def test_a_damaged_checkpoint_is_left_by_every_process(
    make: Make, run: Callable[..., Files], store: Store, tmp_path: Path
) -> None:
    """The first one finds out, and the others follow."""
    with pytest.raises(Interrupted):
        train_stage(make(2), tmp_path, store, stop_at(3))
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    made: list[int] = []
    train_stage(make(2), tmp_path, store, lambda step, _: made.append(step))
    assert made == [1, 2, 3, 4, 5, 6]
    assert files(tmp_path) == run(2)


def test_the_disk_can_be_spared(make: Make, tmp_path: Path) -> None:
    stage = make(1, steps=2)
    spared = stage.training.model_copy(update={"keep_checkpoint": False})
    learned(replace(stage, training=spared), Store(tmp_path))
    assert not list(tmp_path.rglob(CHECKPOINT))
    assert not (tmp_path / "pool").exists()


def launch(folder: Path, config: Mapping[str, Any], spec: Mapping[str, Any]) -> Files:
    """``accelerate launch -m bench train`` with a configuration file."""
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(dict(config)))
    (folder / "spec.yaml").write_text(yaml.safe_dump(dict(spec)))
    command = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", "accelerate.yaml", "--main_process_port", "0",
        "-m", "bench", "train", "DPO", "spec.yaml", "--out", "out",
    ]  # fmt: skip
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("batch: 8 pairs a step = 2 process(es) x 1 part(s) x 4 pairs") == 1
    return {name: data for name, data in files(folder / "out").items() if "store/" not in name}


@pytest.fixture(scope="module")
def launched(
    make: Make, tiny_experiment: Callable[[], dict[str, Any]]
) -> Callable[[Path, Mapping[str, Any]], Files]:
    """The run of :func:`make` started by a launcher."""

    def start(folder: Path, config: Mapping[str, Any]) -> Files:
        stage = make(1)
        train = stage.config.model_dump(mode="json")
        for derived in ("backbone", "base_sha256", "data_sha256", "seed"):
            del train[derived]
        return launch(folder, config, tiny_experiment() | {"train": train, "components": {}})

    return start


def test_accelerate_launches_the_same_run(
    launched: Callable[..., Files], together: Files, tmp_path: Path
) -> None:
    plain = {k: v for k, v in FSDP.items() if k != "fsdp_config"}
    assert launched(tmp_path, plain | {"distributed_type": "MULTI_GPU"}) == together


def test_accelerate_shards_the_weights(
    launched: Callable[..., Files], alone: Files, tmp_path: Path
) -> None:
    agree(alone, launched(tmp_path, FSDP), tmp_path)


def test_a_fault_of_the_run_is_the_fault_of_all(make: Make, store: Store, tmp_path: Path) -> None:
    """No process waits for ever for one that has stopped."""
    stage = make(2, **{"optimizer": {"lr": 1e30}, "reference": {"name": "frozen"}})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train_stage(stage, tmp_path, store, on_every_step)


def test_batches_that_cannot_be_shared(make: Make) -> None:
    assert (split_batch(2048, 512, 16).rows, split_batch(2048, 512, 16).parts) == (128, 32)
    assert (split_batch(48, 3, 2).rows, split_batch(48, 3, 2).parts) == (24, 2)
    with pytest.raises(UserError, match="cannot be cut into 3 equal parts"):
        split_batch(8, 3, 1)
    with pytest.raises(UserError, match="choose a batch_size that 3 divides"):
        make(3)


def test_what_is_announced(make: Make) -> None:
    lines = list(announce(make(1, accumulation=4, optimizer={"lr": 8e-4}).config, 2))
    assert lines[0] == "batch: 8 pairs a step = 2 process(es) x 2 part(s) x 2 pairs"
    assert "0.0008 is applied" in lines[1] and lines[1].endswith(
        "with --scale_lr it would be 0.0001"
    )
    assert "bench convert --beta 5000" in lines[2]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "choose FSDP with fsdp_version 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version 1: set it to 2"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "train.gradient_checkpointing",
        ),
    ],
)
def test_configurations_of_accelerate_that_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sharding_of("cpu") is None
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        sharding_of("cpu")


def test_accelerate_does_not_decide_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(UserError, match="the run decides"), joined("cpu", "float16"):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"name": "lora"}}, "adapter is small"),
        ({"optimizer": {"name": "adafactor", "lr": 1e-5}}, "only 'adamw'"),
        ({"precision": "float16"}, "take 'bfloat16'"),
        ({"channels_last": True}, "channels_last"),
        ({"compile": True}, "compile"),
    ],
)
def test_what_fsdp_cannot_do(make: Make, changes: dict[str, Any], message: str) -> None:
    make(1).config.check_shardable()
    with pytest.raises(UserError, match=message):
        make(1, **changes).config.check_shardable()


def test_trackers_are_told_of_every_step_and_change_nothing(
    store: Store, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []

    class Tracker:
        requires_logging_directory = False

        def __init__(self, run: str) -> None:
            self.name = run

        def start(self) -> None: ...

        def store_init_configuration(self, values: dict[str, Any]) -> None: ...

        def log(self, values: dict[str, Any], step: int) -> None:
            seen.append((step, values["loss"]))

        def finish(self) -> None: ...

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "told", Tracker)
    plain = make(1)
    stage = replace(plain, training=plain.training.model_copy(update={"log_with": ("told",)}))
    assert stage.id == plain.id
    train_stage(stage, tmp_path / "told", store, on_every_step)
    train_stage(plain, tmp_path / "plain", store, on_every_step)
    assert files(tmp_path / "told") == files(tmp_path / "plain")
    logged = [(line["step"], line["loss"]) for line in steps(files(tmp_path / "plain"))]
    assert seen == logged
    with pytest.raises(UserError, match="log_with"):
        replace(plain, training=plain.training.model_copy(update={"log_with": ("nonsense",)}))
