"""Row: folders of models, of trained networks and of rewards' weights."""

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import Done, fork
from experiment import Setting, copy, sha256
from judges import SECRET, Wrong, refused, succeeded, told
from PIL import Image
from rows import Row, Try, sample
from safetensors.torch import save_file
from spoiled import drawn, fuzz
from weights import EVIL, FILES, TENSORS, Planted, Tensors, damage_tensor

from bench.assets import mini_folder
from trainers.backbones.base import ADAPTER_FILE

Judge = Callable[[Done], Done]
WEIGHTS = {"text_encoder": "model", "unet": "diffusion_pytorch_model",
           "vae": "diffusion_pytorch_model"}  # fmt: skip


CONFIGS: dict[str, tuple[str, Mapping[str, Any] | bytes]] = {
    "an index of another pipeline": ("model_index.json", {"_class_name": "FluxPipeline"}),
    "an index of a class of os": ("model_index.json", {"unet": ["os", "system"]}),
    "an index of planted code": ("model_index.json", {"unet": ["evil", "Evil"]}),
    "an index of a planted pipeline": ("model_index.json", {"_class_name": ["evil", "Evil"]}),
    "an index of a planted checker": ("model_index.json", {"safety_checker": ["evil", "Evil"]}),
    "an index of a number": ("model_index.json", {"unet": 7}),
    "a network of another class": ("unet/config.json", {"_class_name": "UNet3DConditionModel"}),
    "a network with planted code": ("unet/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
    "a network of 9 channels": ("unet/config.json", {"in_channels": 9}),
    "a network for other texts": ("unet/config.json", {"cross_attention_dim": 65}),
    "a network of 10^6 pixels": ("unet/config.json", {"sample_size": 10**6}),
    "a network of no pixels": ("unet/config.json", {"sample_size": 0}),
    "a network of nothing": ("unet/config.json", {"block_out_channels": []}),
    "a network of unknown blocks": ("unet/config.json", {"down_block_types": ["A", "B"]}),
    "another number of blocks": ("unet/config.json", {"layers_per_block": 2}),
    "a text encoder of one layer": ("text_encoder/config.json", {"num_hidden_layers": 1}),
    "a text encoder of -1 layers": ("text_encoder/config.json", {"num_hidden_layers": -1}),
    "a text encoder of 9 layers": ("text_encoder/config.json", {"num_hidden_layers": 9}),
    "a text encoder of 10^12 words": ("text_encoder/config.json", {"vocab_size": 10**12}),
    "a text encoder of no activation": ("text_encoder/config.json", {"hidden_act": "no"}),
    "a text encoder of another kind": ("text_encoder/config.json", {"model_type": "gpt2"}),
    "an autoencoder that scales by 0": ("vae/config.json", {"scaling_factor": 0}),
    "an autoencoder that scales by a text": ("vae/config.json", {"scaling_factor": "1"}),
    "an autoencoder that scales by nothing": ("vae/config.json", {"scaling_factor": None}),
    "an autoencoder of 8 channels": ("vae/config.json", {"latent_channels": 8}),
    "a schedule of 2000 steps": ("scheduler/scheduler_config.json", {"num_train_timesteps": 2000}),
    "a schedule of no steps": ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}),
    "an unknown schedule": ("scheduler/scheduler_config.json", {"beta_schedule": "no"}),
    "an unknown prediction": ("scheduler/scheduler_config.json", {"prediction_type": "no"}),
    "an unknown scheduler": ("scheduler/scheduler_config.json", {"_class_name": "No"}),
    "betas as text": ("scheduler/scheduler_config.json", {"beta_start": "0.1"}),
    "zero SNR with epsilon": (
        "scheduler/scheduler_config.json",
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
    "a tokenizer of planted code": (
        "tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]},
                                            "tokenizer_class": "Evil"}),
    "a tokenizer of 0 words": ("tokenizer/tokenizer_config.json", {"model_max_length": 0}),
    **{f"{name}: {said}": (name, data)
       for name in ("model_index.json", "unet/config.json", "text_encoder/config.json",
                    "vae/config.json", "scheduler/scheduler_config.json",
                    "tokenizer/tokenizer.json")
       for said, data in {"empty": b"", "a list": b"[1]", "a private text": SECRET.encode(),
                          "no UTF-8": b"\xff\xfe{"}.items()},
}  # fmt: skip


def _model(folder: Path) -> Path:
    """A copy of the shipped model, beside code that nobody should run."""
    for place in (folder, model := copy(mini_folder() / "sd", folder / "model")):
        (place / "evil.py").write_text(EVIL)
    return model


def _generated(folder: Path, *options: str | Path) -> Done:
    job = ["generate", "--prompts", "mini-dev", "--limit", "1", "--steps", "2", "--out", "images"]
    done = fork([*job, *options], folder)
    if (folder / "planted").exists():
        raise Wrong("planted code was run")
    if done.code == 0:
        for path in (folder / "images").glob("*.png"):
            with Image.open(path) as image:
                if len(set(image.convert("L").getdata())) == 1:
                    raise Wrong("an image of one colour was made, silently")
    return done


def _as_shipped(folder: Path) -> None:
    """Raise Wrong unless the image that was drawn is the shipped model's."""
    (found,) = (sha256(path) for path in (folder / "images").glob("*.png"))
    shutil.rmtree(folder / "images")
    succeeded(_generated(folder))
    (expected,) = (sha256(path) for path in (folder / "images").glob("*.png"))
    if found != expected:
        raise Wrong("another image was drawn, silently")


def _weights(part: str, damage: Callable[[Path], None], folder: Path) -> None:
    model = _model(folder)
    damage(model / part / f"{WEIGHTS[part]}.safetensors")
    refused(_generated(folder, "--base", model))


def _config(name: str, change: Mapping[str, Any] | bytes, folder: Path) -> None:
    """What a config says is refused, or is of no matter."""
    path = _model(folder) / name
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(change)))
    if told(_generated(folder, "--base", folder / "model")).code == 0:
        _as_shipped(folder)


def _network(damage: Callable[[Path], None], folder: Path) -> None:
    """A trained network, which is exported and drawn with."""
    network = folder / "network"
    copy(mini_folder() / "sd" / "unet", (network.mkdir() or network) / "unet")
    damage(network / "unet" / "diffusion_pytorch_model.safetensors")
    refused(_generated(folder, "--network", network))
    refused(fork(["export", network, "--out", folder / "whole"], folder))


def _adapter(tensors: Tensors, folder: Path) -> None:
    network = folder / "network"
    network.mkdir()
    save_file(tensors, network / ADAPTER_FILE)
    refused(_generated(folder, "--network", network))
    refused(fork(["export", network, "--out", folder / "whole"], folder))


def _pair(stem: str, rows: int = 64, value: float = 0.1) -> Tensors:
    return {f"{stem}.lora_A.weight": torch.full((2, rows), value),
            f"{stem}.lora_B.weight": torch.full((rows, 2), value)}  # fmt: skip


QUERY = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
ADAPTERS: dict[str, Tensors] = {
    "keys that match nothing": _pair("nothing.to_q", 96),
    "keys without the part": _pair(QUERY.removeprefix("unet."), 96),
    "a key that matches nothing beside one that does": _pair(QUERY, 96) | _pair("unet.no", 96),
    "half of a pair": {name: t for name, t in _pair(QUERY, 96).items() if "lora_A" in name},
    "misshapen": _pair(QUERY, 64),
    "NaN": _pair(QUERY, 96, float("nan")),
    "nothing": {},
}  # fmt: skip


def _reward(damage: Callable[[Path], None], folder: Path) -> None:
    weights = copy(mini_folder() / "rewards" / "clip", folder / "clip")
    damage(weights / "model.safetensors")
    images = folder / "pictures"
    images.mkdir()
    Image.effect_noise((64, 64), 60).save(images / "a.png")
    (folder / "p.jsonl").write_text('{"file": "a.png", "prompt": "a dog"}\n')
    job = ["score", images, "--rewards", "mini-clip", "--prompts", folder / "p.jsonl"]
    refused(fork([*job, "--weights", f"mini-clip={weights}"], folder))


def _harmless(folder: Path) -> None:
    """A copy draws what the original does, whatever else lies in it, and links inside are taken."""
    model = _model(folder)
    for path in (model / "unet" / "config.json", model / "vae" / "config.json"):
        blob = model / f"{path.parent.name}-blob"
        path.rename(blob)
        path.symlink_to(f"../{blob.name}")
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Planted()))
    (model / "README.md").write_text(SECRET)
    succeeded(_generated(folder, "--base", model))
    _as_shipped(folder)


def _spoiled(path: Path, folder: Path) -> None:
    (name,) = (file.name for file in path.iterdir())
    model = _model(folder)
    shutil.copyfile(path / name, model / name.replace("--", "/"))
    told(_generated(folder, "--base", model))


def _spoil(folder: Path, draw: Any) -> None:
    """A config of the shipped model with some of its values changed."""
    from hypothesis import strategies as st

    root = mini_folder() / "sd"
    configs = [*sorted(root.rglob("*config.json")), root / "model_index.json"]
    path = draw(st.sampled_from(configs))
    raw = fuzz("mutations").altered(json.loads(path.read_text()), draw)
    name = path.relative_to(root).as_posix().replace("/", "--")
    (folder / name).write_text(json.dumps(raw))


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = [Try("a copy with other files beside it", _harmless)]
    damages = {
        **{f"a tensor {said}": partial(damage_tensor, fault, int(rng.integers(100)))
           for said, fault in TENSORS.items()},
        **{f"weights {said}": damage for said, damage in FILES.items()},
    }  # fmt: skip
    for said, damage in damages.items():
        found += [Try(f"{part}: {said}", partial(_weights, part, damage)) for part in WEIGHTS]
        found.append(Try(f"a network: {said}", partial(_network, damage)))
        found.append(Try(f"a reward: {said}", partial(_reward, damage)))
    found += [Try(f"an adapter: {said}", partial(_adapter, it)) for said, it in ADAPTERS.items()]
    found += [Try(said, partial(_config, *given)) for said, given in CONFIGS.items()]
    found = sample(found, rng, count)
    if more := count - len(found):
        made = drawn(setting.work / "spoiled-configs", more, int(rng.integers(2**31)), _spoil)
        found += [Try(f"spoiled config {n}", partial(_spoiled, p)) for n, p in enumerate(made)]
    return found


ROW = Row("models", "folders of models, trained networks and rewards", tries, 220)
