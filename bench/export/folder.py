"""A trained model as a whole diffusers folder, which any pipeline loads without this package."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bench.export.adapter import adapted_part, merge
from trainers.backbones.base import ADAPTER_FILE
from trainers.backbones.folders import variant
from trainers.errors import UserError
from trainers.files import write_text
from trainers.input.paths import writable_folder

INDEX = "model_index.json"


def export(base: Path, network: Path, out: Path) -> list[str]:
    """Copy a model folder, with the parts that a run has trained in place of its own.

    An adapter is merged into the part that it belongs to. Whatever the base folder holds besides
    the parts of its pipeline is left behind, and ``out`` appears only once it is whole.

    Args:
        base: The pretrained model, in the diffusers layout.
        network: What a run left: a folder with, say, ``unet`` or an adapter in it.
        out: The folder to make.

    Returns:
        The names of the trained parts.

    Raises:
        UserError: If ``base`` is no such folder, ``network`` holds none of its parts and no
            adapter that fits one, or ``out`` exists.
    """
    if not (base / INDEX).is_file():
        raise UserError(f"expected a diffusers folder, but there is no {base / INDEX}")
    if out.exists():
        raise UserError(f"{out} exists: name a new folder, or delete it")
    index: dict[str, Any] = json.loads((base / INDEX).read_text())
    parts = [name for name in index if (base / name).is_dir()]
    adapter = network / ADAPTER_FILE
    trained = [part for part in parts if (network / part).is_dir()]
    adapted = [adapted_part(adapter, parts)] if adapter.is_file() and not trained else []
    if not trained and not adapted:
        raise UserError(
            f"expected a folder with a trained network in it, one of {', '.join(parts)}, or with "
            f"an adapter, {ADAPTER_FILE}, got {network}: give the folder that a training run has "
            "filled"
        )
    with tempfile.TemporaryDirectory(
        dir=writable_folder(out.parent), prefix=f".{out.name}."
    ) as name:
        whole = Path(name) / out.name
        whole.mkdir()
        shutil.copy(base / INDEX, whole / INDEX)
        for part in parts:
            if part in adapted:
                merge(index[part][1], base / part, adapter, whole / part)
            else:
                _copy((network if part in trained else base) / part, whole / part)
        whole.replace(out)
    return trained + adapted


def _copy(part: Path, out: Path) -> None:
    """Copy a part; weights in half precision, if it has no others, are then called as others are.

    A pipeline would have to be told of them otherwise, and of all its parts at once.
    """
    shutil.copytree(part, out)
    marked = list(out.glob("*.fp16*"))
    if marked and variant(out) == "fp16":
        for path in marked:
            if path.suffix == ".json":  # An index of several files, which it names.
                write_text(path, path.read_text().replace(".fp16", ""))
            path.rename(out / path.name.replace(".fp16", ""))
