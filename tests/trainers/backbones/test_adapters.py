"""From training to a picture: what a run leaves is what diffusers, alone, draws with."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.cli import run
from bench.export.folder import export
from bench.images.draw import load_pipeline
from trainers.backbones import BACKBONES, Backbone
from trainers.backbones.base import ADAPTER_FILE
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData
from trainers.errors import UserError
from trainers.record import METRICS, RECORD

LN_2 = 0.6931471805599453
SAMPLERS = {
    "stable-diffusion": "ddim",
    "stable-diffusion-xl": "ddim",
    "stable-diffusion-3": "flow-euler",
}
ROUGH = {"lr": 0.05}
Run = Callable[..., tuple[Trainer, Path]]


def picture(pipeline: Any) -> NDArray[np.uint8]:
    """A small one."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return np.asarray(pipeline("owl", num_inference_steps=2, generator=generator).images[0])


def predicted(trainer: Trainer, network: nn.Module) -> Tensor:
    """What a network makes of the first two images under the draws of step 0."""
    rows, draws = torch.tensor([0, 1]), trainer.stream.at(0, 2)
    condition = trainer.data.condition(rows, torch.tensor([False, False]))
    x = trainer.data.images(rows)[0].mean
    t = torch.tensor([10, 900])
    with torch.no_grad():
        noisy = trainer.backbone.add_noise(x, draws.noise, t)
        return trainer.backbone.predict(network, noisy, t, condition)


@pytest.fixture(params=SAMPLERS)
def trained(
    request: pytest.FixtureRequest,
    configure: Callable[..., TrainConfig],
    backbones: dict[str, Backbone],
    pairs: dict[str, PairData],
    tmp_path: Path,
) -> Run:
    """A run of three steps with an updated reference, and the folder that it leaves."""
    name = request.param

    def make(**changes: Any) -> tuple[Trainer, Path]:
        rule = {"name": "hard-copy", "tau": 2, "delta": None, "subset": 1}
        config = configure(backbone=name, reference=rule, optimizer=ROUGH, steps=3, **changes)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        trainer = Trainer(config, backbones[name], pairs[name])
        trainer.run(folder)
        return trainer, folder

    return make


def test_an_adapter_from_training_to_a_picture(
    trained: Run, folders: dict[str, Path], lora: dict[str, Any]
) -> None:
    """The pipeline with the adapter predicts, and draws, as the trained role does.

    So does a model that is exported with the adapter in its weights, and with nothing left of it.
    """
    trainer, left = trained(weights=lora)
    assert {path.name for path in left.iterdir()} == {METRICS, RECORD, ADAPTER_FILE}
    name, part = trainer.config.backbone, trainer.backbone.network_part
    folder, role = folders[name], trainer.config.weights.network(trainer.policy).eval()
    pipeline = DiffusionPipeline.from_pretrained(folder)
    plain = predicted(trainer, getattr(pipeline, part))
    assert torch.equal(plain, predicted(trainer, trainer.init))
    expected = predicted(trainer, role)
    assert (expected - plain).abs().max() > 1e-2
    unchanged = picture(load_pipeline(folder, None, SAMPLERS[name], name))

    pipeline.load_lora_weights(left)
    found = predicted(trainer, getattr(pipeline, part))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    sampled = picture(load_pipeline(folder, left, SAMPLERS[name], name))
    memory = load_pipeline(folder, None, SAMPLERS[name], name)
    setattr(memory, part, role)
    np.testing.assert_array_equal(sampled, picture(memory))
    assert (sampled != unchanged).any()

    whole = left.parent / "whole"
    assert run(["export", str(left), "--base", str(folder), "--out", str(whole)]) == 0
    exported = getattr(DiffusionPipeline.from_pretrained(whole), part)
    torch.testing.assert_close(predicted(trainer, exported), expected, rtol=1e-5, atol=1e-5)
    bare = trainer.backbone.load_network().state_dict()
    shapes = {name: weight.shape for name, weight in exported.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in bare.items()}


def test_a_trained_network_from_training_to_a_picture(
    trained: Run, folders: dict[str, Path]
) -> None:
    """The run's folder is read by from_pretrained; the network is the trained one to the bit."""
    trainer, left = trained()
    name, part = trainer.config.backbone, trainer.backbone.network_part
    pipeline = DiffusionPipeline.from_pretrained(folders[name])
    kind = type(getattr(pipeline, part))
    unchanged = picture(pipeline)
    network = kind.from_pretrained(left, subfolder=part)
    setattr(pipeline, part, network)
    policy = trainer.policy.eval()
    assert torch.equal(predicted(trainer, network), predicted(trainer, policy))
    sampled = picture(pipeline)
    setattr(pipeline, part, policy)
    np.testing.assert_array_equal(sampled, picture(pipeline))
    assert (sampled != unchanged).any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_a_run_leaves_is_the_same_wherever_the_model_lies(
    configure: Callable[..., TrainConfig],
    pairs: dict[str, PairData],
    folders: dict[str, Path],
    lora: dict[str, Any],
    tmp_path: Path,
    name: str,
) -> None:
    """Byte for byte, and so is what is exported; no file names the place."""
    for weights in ({"name": "full"}, lora):
        left = []
        for place in ("here", "elsewhere"):
            model, out = tmp_path / place / "model", tmp_path / place / weights["name"]
            shutil.copytree(folders[name], model, dirs_exist_ok=True)
            config = configure(backbone=name, weights=weights, steps=1)
            Trainer(config, BACKBONES.get(name)(model), pairs[name]).run(out / "run")
            export(model, out / "run", out / "whole")
            left.append(
                {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*") if p.is_file()}
            )
        assert left[0] == left[1]
        assert not any(str(tmp_path).encode() in content for content in left[0].values())


def test_an_adapter_starts_as_the_pretrained_network(
    configure: Callable[..., TrainConfig],
    backbones: dict[str, Backbone],
    pairs: dict[str, PairData],
    lora: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The first margin is 0; recomputing blocks changes no bit of what a run leaves.

    And that although the reference has an adapter of its own over the same frozen weights.
    """
    for name in SAMPLERS:
        files = []
        for again in (False, True):
            config = configure(
                backbone=name,
                weights=lora,
                reference={"name": "hard-copy", "tau": 2, "delta": None, "subset": 1},
                optimizer=ROUGH,
                gradient_checkpointing=again,
                steps=4,
            )
            trainer = Trainer(config, backbones[name], pairs[name])
            first = trainer.advance()
            assert (first.margin, first.loss) == (0.0, pytest.approx(LN_2, rel=1e-6))
            folder = tmp_path / name / str(again)
            Trainer(config, backbones[name], pairs[name]).run(folder)
            files.append({p.name: p.read_bytes() for p in folder.iterdir()})
        assert files[0] == files[1]


@pytest.fixture(scope="module")
def adapter(
    configure: Callable[..., TrainConfig],
    backbones: dict[str, Backbone],
    pairs: dict[str, PairData],
    lora: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What a run of one step on Stable Diffusion leaves."""
    folder, name = tmp_path_factory.mktemp("run"), "stable-diffusion"
    Trainer(configure(weights=lora, steps=1), backbones[name], pairs[name]).run(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stable-diffusion-xl", r"to have a layer \S+to_k with 16 inputs, but it has 40: give the"),
        ("stable-diffusion-3", "expected an adapter of one part of the model, .*, got one of unet"),
    ],
)
def test_an_adapter_of_another_model_is_not_exported(
    adapter: Path,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    message: str,
) -> None:
    """It says what does not fit, and leaves nothing behind."""
    arguments = [str(adapter), "--base", str(folders[name]), "--out", str(tmp_path / "whole")]
    assert run(["export", *arguments]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_peft_is_needed_to_export_an_adapter(
    adapter: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"peft, which is not installed: pip install"):
        export(model_folder, adapter, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []
