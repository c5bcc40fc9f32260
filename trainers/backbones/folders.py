"""Parts of a model as folders in the diffusers layout, read and written."""

import json
from pathlib import Path
from typing import Any

import torch

from trainers.errors import UserError
from trainers.files import write_text

STEMS = ("diffusion_pytorch_model", "model")
"""How the weights of diffusers' and transformers' models are called."""
ENDS = {
    None: (".safetensors", ".safetensors.index.json"),
    "fp16": (".fp16.safetensors", ".safetensors.index.fp16.json"),
}
"""The rest of their names by variant: in one file, or the index of several."""


def variant(folder: Path) -> str | None:
    """Which weights of a part to read: "fp16" where there are no others, else None.

    Raises:
        UserError: If there are no weights, or none that can be read without running what they hold.
    """
    names = {path.name for path in folder.iterdir()}
    for found, ends in ENDS.items():
        if any(stem + end in names for stem in STEMS for end in ends):
            return found
    expected = f"expected weights in {folder}, as {STEMS[0]}.safetensors or {STEMS[1]}.safetensors"
    if pickles := sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt"))):
        raise UserError(
            f"{expected}, got {pickles[0]}, which can run code when it is read: download the "
            "model's safetensors or, if you trust the file, load the model with diffusers once and "
            "write it anew with save_pretrained"
        )
    raise UserError(f"{expected}, got none: give a folder written by save_pretrained")


def weight_files(folder: Path) -> list[Path]:
    """The files of a part's weights, of the variant that is read; an index and what it names.

    Raises:
        UserError: As for :func:`variant`.
    """
    candidates = [folder / (stem + end) for stem in STEMS for end in ENDS[variant(folder)]]
    found = [path for path in candidates if path.is_file()]
    for index in [path for path in found if path.suffix == ".json"]:
        shards = set(json.loads(index.read_text())["weight_map"].values())
        found += [folder / name for name in sorted(shards)]
    return found


def load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of diffusers or transformers, in ``dtype`` whatever it is stored in.

    Raises:
        UserError: As for :func:`variant`.
    """
    return kind.from_pretrained(
        folder,
        variant=variant(folder),
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
    )


def build_part(kind: Any, config: dict[str, Any]) -> Any:
    """A model of diffusers or transformers on the meta device, by its config."""
    with torch.device("meta"):
        if hasattr(kind, "from_config"):
            return kind.from_config(config)
        return kind(kind.config_class(**config))


def published(module: str) -> dict[str, dict[str, Any]]:
    """Configs of well-known models, from the JSON file beside the module of their backbone.

    By the last part of their folder's or repository's name: their source, and what each part has
    in ``config.json`` there, without what diffusers or transformers fill in alike.
    """
    found: dict[str, dict[str, Any]] = json.loads(Path(module).with_suffix(".json").read_text())
    return found


def save_part(model: Any, folder: Path) -> None:
    """Write a diffusers model: the same bytes wherever it was loaded from.

    ``save_pretrained`` puts the path that the weights came from into the config.
    """
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
