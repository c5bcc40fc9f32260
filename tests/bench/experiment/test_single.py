"""A training run in a folder of its own: done once, never replaced by another, never spoiled."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run
from bench.spec.model import override
from bench.stages.encode import CACHE
from trainers.record import CHECKPOINT, METRICS, RECORD

Capture = pytest.CaptureFixture[str]
NETWORK = "unet/diffusion_pytorch_model.safetensors"


class Interrupted(Exception):
    """Stands for anything that ends a process."""


@pytest.fixture
def spec(tiny: dict[str, Any], write_spec: Callable[[Mapping[str, Any]], str]) -> str:
    """The tiny experiment on eight pairs, with an arm that is another's run."""
    return write_spec(override(tiny, {"train.data": {"subset": 8}, "objectives.same": {}}))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that all runs here share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def train(spec: str, stored: Path, tmp_path: Path) -> Callable[..., int]:
    """``bench train`` into ``out``."""
    return lambda *words: run(
        ["train", *words[:1], spec, "--out", str(tmp_path / "out"), "--store", str(stored),
         *words[1:]]
    )  # fmt: skip


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file."""
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in files(folder).items()}


def test_a_run_that_is_there_is_not_trained_again(
    train: Callable[..., int], stored: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert train("DPO+A") == 0
    assert "step 4/4 loss" in capsys.readouterr().err
    left = files(out)
    assert {METRICS, RECORD, NETWORK} <= left.keys()
    assert CHECKPOINT not in left
    assert not (out / "store").exists()
    assert len(list((stored / CACHE).rglob("*.safetensors"))) > 0
    assert train("DPO+A") == 0
    said = capsys.readouterr().err
    assert f"is in {out} already: nothing to do" in said
    assert "loss" not in said
    assert files(out) == left


def test_another_run_is_refused_by_name(
    train: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert train("DPO") == 0
    assert train("same") == 0, "the same run by another name"
    left = files(out)
    capsys.readouterr()
    for words, told in (
        (["DPO+A"], 'reference.name is "frozen" there and "hard-copy" here'),
        (["DPO", "--seed", "3"], "seed is 0 there and 3 here"),
        (["DPO", "--set", "train.steps=5"], "steps is 4 there and 5 here"),
    ):
        assert train(*words) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"bench: {out} holds run ")
        assert told in said
        assert said.endswith(f"train into another folder, or delete that one (rm -r {out})\n")
        assert said.count("\n") == 1
    assert files(out) == left


def test_a_damaged_run_or_one_without_a_record_is_refused(
    train: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert train("DPO") == 0
    whole = (out / NETWORK).read_bytes()
    (out / NETWORK).write_bytes(whole[:-1] + b"x")
    assert train("DPO") == 1
    assert f"{out / NETWORK} was changed or lost since it was trained" in capsys.readouterr().err
    (out / RECORD).unlink()
    assert train("DPO") == 1
    assert f"{out / 'unet'} is there, and no {RECORD} says of which run" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["network", "record", "checkpoint"])
def test_what_ends_between_training_and_record_is_not_trained_again(
    moment: str,
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """Killed before the network is whole, before the record, and before the checkpoint is gone."""
    out = tmp_path / "out"
    assert train("DPO+A") == 0
    expected = contents(out)
    shutil.rmtree(out)
    unlink = Path.unlink

    def stop(path: Path, *_: object) -> None:
        if moment == "network":
            (path / "unet").mkdir()
            (path / "unet" / "config.json").write_text("{")
        raise Interrupted

    def stop_at_checkpoint(path: Path, missing_ok: bool = False) -> None:
        if path.name == CHECKPOINT:
            raise Interrupted
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        if moment == "network":
            patch.setattr("trainers.weights.full.Full.save", lambda self, *of: stop(of[-1]))
        elif moment == "record":
            patch.setattr("trainers.core.write_record", stop)
        else:
            patch.setattr(Path, "unlink", stop_at_checkpoint)
        with pytest.raises(Interrupted):
            train("DPO+A")
    assert (out / CHECKPOINT).is_file()
    assert (out / RECORD).is_file() == (moment == "checkpoint")
    capsys.readouterr()
    assert train("DPO+A") == 0
    assert "loss" not in capsys.readouterr().err, "no step is made"
    assert train("DPO+A") == 0
    assert contents(out) == expected


def test_a_device_that_is_not_there_spoils_no_folder(
    train: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    images = [
        "generate", "--prompts", "mini-dev", "--limit", "1", "--steps", "1", "--out",
        str(tmp_path / "images"),
    ]  # fmt: skip
    for command in (
        lambda: train("DPO", "--device", "cuda:99"),
        lambda: run([*images, "--device", "cuda:99", "--seed", "1"]),
    ):
        assert command() == 1
        said = capsys.readouterr().err
        assert "device: 'cuda:99' cannot be used here" in said
        assert said.count("\n") == 1
    assert not out.exists()
    assert train("DPO+A") == 0
    assert run(images) == 0
    assert len(list((tmp_path / "images").glob("*.png"))) == 1
