"""Runs of more steps go on where shorter ones ended that are their beginnings.

``<pool>/<first 16 hex digits of the prefix>/<steps>`` holds the checkpoint and the log as the run
of so many steps ended, and ``kept.json``, their sha256, which is written last.
"""

import json
import shutil
from pathlib import Path

from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.files import as_json, sha256_file, write_atomically, write_text
from trainers.record import CHECKPOINT, METRICS, RECORD

KEPT = "kept.json"
FILES = (METRICS, CHECKPOINT)
"""In the order in which a folder takes them: a log alone is begun again."""


def keep_end(pool: Path, config: TrainConfig, folder: Path) -> None:
    """Move the last checkpoint of a finished run out of its folder, with a copy of its log."""
    end = _prefix(pool, config) / str(config.steps)
    (end / KEPT).unlink(missing_ok=True)
    end.mkdir(parents=True, exist_ok=True)
    _copy(folder / METRICS, end / METRICS)
    (folder / CHECKPOINT).replace(end / CHECKPOINT)
    write_text(end / KEPT, as_json({name: sha256_file(end / name) for name in FILES}))


def take_up(pool: Path, config: TrainConfig, folder: Path) -> None:
    """Let a run that has not begun go on from the longest of its beginnings that is kept.

    Raises:
        UserError: If that was changed since; the message says the mend.
    """
    if (folder / CHECKPOINT).exists() or (folder / RECORD).exists():
        return
    ends = {int(path.parent.name): path.parent for path in _prefix(pool, config).glob(f"*/{KEPT}")}
    shorter = [steps for steps in ends if steps < config.steps]
    if not shorter:
        return
    end = ends[max(shorter)]
    kept = json.loads((end / KEPT).read_text())
    for name in FILES:
        if not (end / name).is_file() or sha256_file(end / name) != kept[name]:
            raise UserError(
                f"{end / name} was changed or lost: delete that folder (rm -r {end}) and run the "
                "same command again"
            )
    for name in FILES:
        _copy(end / name, folder / name)


def _prefix(pool: Path, config: TrainConfig) -> Path:
    return pool / config.prefix_id()[:16]


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda part: shutil.copyfile(source, part))
