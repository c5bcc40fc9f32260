"""A damaged base model is refused before anything is encoded or trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from bench.assets import model_folder
from bench.experiment.prepare import prepare
from bench.experiment.run import ablate
from bench.experiment.single import train_arm
from bench.spec.model import Spec
from bench.stages.store import Store
from trainers.errors import UserError

QUIET = Console(quiet=True)


def spoil(folder: Path, part: str, value: float) -> Path:
    """The shipped model with one value of a tensor of a part replaced."""
    shutil.copytree(model_folder("mini-sd"), folder)
    (path,) = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    tensors[min(tensors)] = tensors[min(tensors)].float()  # Of half precision, some as they ship.
    tensors[min(tensors)].view(-1)[0] = value
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_nan_stops_before_the_first_stage(
    tiny_experiment: Callable[[], dict[str, Any]], tmp_path: Path, part: str
) -> None:
    """Whatever part it is in, and although the stages would read some parts late or not at all."""
    base = spoil(tmp_path / "model", part, torch.nan)
    spec = Spec(**{**tiny_experiment(), "base": str(base)})
    with pytest.raises(UserError, match=rf"{part}/.*NaN or infinite values in \S+"):
        ablate(prepare(spec), tmp_path / "runs", 1, QUIET)
    with pytest.raises(UserError, match=rf"{part}/.*NaN or infinite values in \S+"):
        train_arm(spec, "DPO", 0, tmp_path / "run", Store(tmp_path / "store"), QUIET)
    made = [path for name in ("runs", "run", "store") for path in (tmp_path / name).rglob("*.*")]
    assert made == []


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("unet", {"generate": {"steps": 2, "guidance": 4.0, "dtype": "float16"}}),
        ("text_encoder", {"train": {"data": {"precision": "float16"}}}),
    ],
)
def test_what_a_precision_cannot_hold_stops_there_too(
    tiny_experiment: Callable[[], dict[str, Any]],
    tmp_path: Path,
    part: str,
    settings: dict[str, Any],
) -> None:
    """1e5 is finite in float32, infinite in float16: the spec's precisions are what counts."""
    given = {**tiny_experiment(), "base": str(spoil(tmp_path / "model", part, 1e5))}
    train = given["train"] | settings.pop("train", {})
    spec = Spec(**{**given, **settings, "train": train})
    with pytest.raises(UserError, match=rf"{part}: .* become infinite in it: compute in bfloat16"):
        ablate(prepare(spec), tmp_path / "runs", 1, QUIET)
