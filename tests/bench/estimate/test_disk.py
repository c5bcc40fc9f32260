"""What clearly does not fit on a disk is told before any work."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli import run
from bench.estimate import disk
from bench.estimate.disk import least_bytes
from bench.experiment.prepare import prepare
from bench.experiment.run import missing_stages
from bench.spec.model import override, parse_spec
from bench.stages.store import Store
from trainers.backbones import BACKBONES


def parts(tiny: dict[str, Any], **changes: Any) -> dict[str, float]:
    spec = parse_spec(override(tiny, changes), "tiny")
    experiment = prepare(spec)
    model = BACKBONES.get("stable-diffusion").skeleton("mini-sd", experiment.sets[0].images.base)
    return least_bytes(spec, experiment.stages(), model)


def test_the_least_is_not_more_than_what_is_written(
    tiny: dict[str, Any], write_spec: Callable[[Mapping[str, Any]], str], tmp_path: Path
) -> None:
    """And a good part of it: of images, the pool has all, and each once."""
    little = override(tiny, {"components": {}, "seeds": [0], "train.data": {"subset": 24}})
    assert (
        run(["ablate", write_spec(little), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    )
    root = Store(tmp_path / "out" / "store").root

    def size(pattern: str) -> int:
        return sum(path.stat().st_size for path in root.glob(pattern))

    least = parts(little)
    for name, pattern in {
        "encodings": "encodings/*/images/*.safetensors",
        "networks": "train/*/unet/*.safetensors",
        "checkpoints": "pool/train/*/*/*/checkpoint.safetensors",
        "images": "pool/images/*/*.png",
    }.items():
        part = 0.1 if name == "images" else 0.9
        assert part * size(pattern) < least[name] <= size(pattern), name


def test_errors_of_the_reference_are_counted_where_they_lie(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    """Two floats for each of 4 steps of 4 pairs, in the pool and as an artefact."""
    control = {"of": "DPO", "set": {"objective.beta": 50}}
    raw = override(tiny, {"components": {}, "seeds": [0], "controls": {"weak": control}})
    spec = parse_spec(raw, "tiny")
    experiment = prepare(spec)
    model = BACKBONES.get("stable-diffusion").skeleton("mini-sd", experiment.sets[0].images.base)
    stages = missing_stages(experiment, Store(tmp_path))
    assert least_bytes(spec, stages, model)["reference errors"] == 2 * 4 * 2 * 16


def test_checkpoints_that_are_not_kept_take_the_room_of_one(tiny: dict[str, Any]) -> None:
    kept, spared = parts(tiny), parts(tiny, **{"training.keep_checkpoint": False})
    assert spared["checkpoints"] < kept["checkpoints"]
    assert spared["networks"] == kept["networks"]


@pytest.mark.parametrize("command", ["ablate", "train"])
def test_what_does_not_fit_is_refused_before_the_work(
    tiny: dict[str, Any],
    write_spec: Callable[[Mapping[str, Any]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    spec, out = write_spec(tiny), tmp_path / "out"
    arguments = [spec] if command == "ablate" else ["DPO", spec]
    assert run([command, *arguments, "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert f"{out / 'store'}: expected " in told and "got 0.000977: free space, choose" in told
    assert told.count("\n") == 1
    assert not list(out.rglob("*.safetensors"))
