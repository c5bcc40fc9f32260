"""What the folder of a finished run holds: written last, so that it is true."""

from pathlib import Path
from typing import Any

from trainers.backbones import BACKBONES
from trainers.backbones.base import ADAPTER_FILE
from trainers.config import TrainConfig
from trainers.differences import differences
from trainers.errors import UserError
from trainers.files import as_json, sha256_file, write_text
from trainers.input.paths import is_regular
from trainers.input.text import read_json

RECORD = "run.json"
"""run_id, config, the sha256 of each file, and ``PREFIX`` where the objective has one."""
PREFIX = "prompt_prefix"
CHECKPOINT = "checkpoint.safetensors"
"""Where an unfinished run goes on."""
METRICS = "metrics.jsonl"
"""The log of every step."""


def write_record(folder: Path, config: TrainConfig) -> None:
    """Declare that a folder holds a run, whole: its network or adapter, and its log."""
    write_text(folder / RECORD, as_json(_record(folder, config)))


def _record(folder: Path, config: TrainConfig) -> dict[str, Any]:
    network = folder / BACKBONES.get(config.backbone).network_part
    paths = [folder / METRICS, folder / ADAPTER_FILE, *sorted(network.rglob("*"))]
    files = {p.relative_to(folder).as_posix(): sha256_file(p) for p in paths if is_regular(p)}
    record = {"run_id": config.run_id(), "config": config.model_dump(mode="json"), "files": files}
    prefixes = config.objective.prefixes
    return record | ({PREFIX: prefixes[0]} if prefixes else {})


def prompt_prefix(folder: Path) -> str:
    """What stands before every prompt that the network in a folder makes images of.

    Empty, unless the record of its run says otherwise.

    Raises:
        UserError: If there is a record, and it is no record.
    """
    path = folder / RECORD
    if not path.exists():
        return ""
    return str(_read(path, f"train again, or delete {path}").get(PREFIX, ""))


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """Whether a folder holds this run, whole.

    Raises:
        UserError: If it holds another run, a damaged one, or a network of who knows which; the
            message says the way out.
    """
    way_out = f"train into another folder, or delete that one (rm -r {folder})"
    if not (folder / RECORD).exists():
        network = folder / BACKBONES.get(config.backbone).network_part
        trained = next((p for p in (network, folder / ADAPTER_FILE) if p.exists()), None)
        if trained and not (folder / CHECKPOINT).exists():
            raise UserError(f"{trained} is there, and no {RECORD} says of which run: {way_out}")
        return False
    there, here = _read(folder / RECORD, way_out), _record(folder, config)
    if there["run_id"] != here["run_id"]:
        why = differences(there["config"], here["config"])
        raise UserError(
            f"{folder} holds run {there['run_id'][:16]}, and this is {here['run_id'][:16]} "
            f"({why}): {way_out}"
        )
    for name in sorted({*there["files"], *here["files"]}):
        if there["files"].get(name) != here["files"].get(name):
            raise UserError(f"{folder / name} was changed or lost since it was trained: {way_out}")
    if there != here:
        raise UserError(f"{folder / RECORD} was changed since it was written: {way_out}")
    return True


def _read(path: Path, way_out: str) -> dict[str, Any]:
    try:
        record = read_json(path)
    except UserError as error:
        raise UserError(f"{error}: {way_out}") from error
    kinds = {"run_id": str, "config": dict, "files": dict}
    optional = {PREFIX: str}
    if not isinstance(record, dict) or (
        optional | {k: type(v) for k, v in record.items()} != optional | kinds
    ):
        raise UserError(f"{path}: expected {', '.join(kinds)}, got other JSON: {way_out}")
    return record
