"""What the folder of a finished run holds: written last, so that it is true."""

import json
from pathlib import Path
from typing import Any

from trainers.backbones import BACKBONES
from trainers.backbones.base import ADAPTER_FILE
from trainers.config import TrainConfig
from trainers.differences import differences
from trainers.errors import UserError
from trainers.files import as_json, sha256_file, write_text

RECORD = "run.json"
"""run_id, config, and the sha256 of each file."""
CHECKPOINT = "checkpoint.safetensors"
"""Where an unfinished run goes on."""
METRICS = "metrics.jsonl"
"""The log of every step."""


def write_record(folder: Path, config: TrainConfig) -> None:
    """Declare that a folder holds a run, whole: its network or adapter, and its log."""
    network = folder / BACKBONES.get(config.backbone).network_part
    paths = [folder / METRICS, folder / ADAPTER_FILE, *sorted(network.rglob("*"))]
    files = {p.relative_to(folder).as_posix(): sha256_file(p) for p in paths if p.is_file()}
    record = {
        "run_id": config.run_id(), "config": config.model_dump(mode="json"), "files": files
    }  # fmt: skip
    write_text(folder / RECORD, as_json(record))


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """Whether a folder holds this run, whole; the checkpoint of one that does is cleared away.

    Raises:
        UserError: If it holds another run, a damaged one, or a network of who knows which; the
            message says the way out.
    """
    way_out = f"train into another folder, or delete that one (rm -r {folder})"
    if not (folder / RECORD).is_file():
        network = folder / BACKBONES.get(config.backbone).network_part
        trained = next((p for p in (network, folder / ADAPTER_FILE) if p.exists()), None)
        if trained and not (folder / CHECKPOINT).is_file():
            raise UserError(f"{trained} is there, and no {RECORD} says of which run: {way_out}")
        return False
    record = _read(folder / RECORD, way_out)
    if record["run_id"] != config.run_id():
        why = differences(record["config"], config.model_dump(mode="json"))
        raise UserError(
            f"{folder} holds run {record['run_id'][:16]}, and this is {config.run_id()[:16]} "
            f"({why}): {way_out}"
        )
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise UserError(f"{folder / name} was changed or lost since it was trained: {way_out}")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return True


def _read(path: Path, way_out: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {way_out}") from error
    return record
