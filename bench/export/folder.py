"""A trained model as a whole diffusers folder, which any pipeline loads without this package."""

import shutil
import tempfile
from pathlib import Path

from trainers.backbones import BACKBONES
from trainers.backbones.base import ADAPTER_FILE
from trainers.backbones.configs import read_settings, shown
from trainers.backbones.folders import variant
from trainers.backbones.latent import LatentModel
from trainers.backbones.pipelines import INDEX
from trainers.errors import UserError
from trainers.files import writable_folder, write_text


def export(base: Path, network: Path, out: Path) -> str:
    """Copy a model folder, with the network that a run has trained in place of its own.

    An adapter is merged into the network: ``W + alpha / rank * B A`` (Hu et al. 2021, 2106.09685),
    in float32. Whatever the base folder holds besides
    the parts of its pipeline is left behind, and ``out`` appears only once it is whole.

    Args:
        base: The pretrained model, in the diffusers layout.
        network: What a run left: a folder with, say, ``unet`` or an adapter in it.
        out: The folder to make.

    Returns:
        The name of the trained part.

    Raises:
        UserError: If ``base`` is no such folder or a part of it is damaged, ``network`` holds no
            network of it and no adapter that fits, or ``out`` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists: name a new folder, or delete it")
    model = _backbone(base)
    index, own = read_settings(base / INDEX), model.network_part
    parts = [name for name in index if (base / name).is_dir()]
    if not (network / own).is_dir() and not (network / ADAPTER_FILE).is_file():
        raise UserError(
            f"expected a folder with a trained network in it, {own}, or with an adapter, "
            f"{ADAPTER_FILE}, got {network}: give the folder that a training run has filled"
        )
    parent = writable_folder(out.parent)
    model.check("float32")
    trained = model.load_trained(network)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{out.name}.") as name:
        whole = Path(name) / out.name
        whole.mkdir()
        shutil.copy(base / INDEX, whole / INDEX)
        for part in parts:
            if part != own:
                _copy(base / part, whole / part)
            elif (network / own).is_dir():
                _copy(network / own, whole / own)
            else:
                model.save_network(trained, whole)
        whole.replace(out)
    return own


def _backbone(base: Path) -> LatentModel:
    """The backbone whose pipeline a folder holds.

    Raises:
        UserError: If there is none, or a part of the folder is wrong.
    """
    name = read_settings(base / INDEX).get("_class_name")
    every = (kind for _, kind in BACKBONES.usable() if issubclass(kind, LatentModel))
    kinds = {kind.pipeline_class.__name__: kind for kind in every}
    if name not in kinds:
        raise UserError(f"{base / INDEX}: expected one of {', '.join(kinds)}, got {shown(name)}")
    return kinds[name](base)


def _copy(part: Path, out: Path) -> None:
    """Copy a part; weights in half precision, if it has no others, are then called as others are.

    A pipeline would have to be told of them otherwise, and of all its parts at once.
    """
    shutil.copytree(part, out)
    marked = list(out.glob("*.fp16*"))
    if marked and variant(out) == "fp16":
        for path in marked:
            if path.suffix == ".json":  # An index of several files, which it names.
                write_text(path, path.read_text(encoding="utf-8").replace(".fp16", ""))
            path.rename(out / path.name.replace(".fp16", ""))
