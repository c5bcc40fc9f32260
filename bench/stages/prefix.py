"""Runs of more steps go on where shorter ones ended that are their beginnings.

``<pool>/<first 16 hex digits of the prefix>/<steps>`` holds the log and the checkpoint, sealed, as
the run of so many steps ended. The checkpoint comes last and knows its log: a log alone is nothing.
"""

import shutil
from pathlib import Path

from trainers.checkpoint import read_state
from trainers.config import TrainConfig
from trainers.files import tell, write_atomically
from trainers.metrics import log_sha256
from trainers.record import CHECKPOINT, METRICS, RECORD
from trainers.sealed import copy, drop, move, take


def keep_end(pool: Path, config: TrainConfig, folder: Path) -> None:
    """Move the last checkpoint of a finished run out of its folder, with a copy of its log."""
    end = _prefix(pool, config) / str(config.steps)
    drop(end / CHECKPOINT)
    _copy(folder / METRICS, end / METRICS)
    move(folder / CHECKPOINT, end / CHECKPOINT)


def take_up(pool: Path, config: TrainConfig, folder: Path) -> None:
    """Let a run that has not begun go on from the longest of its beginnings that is kept.

    One that was changed since is told of and cleared away.
    """
    if (folder / CHECKPOINT).exists() or (folder / RECORD).exists():
        return
    found = [path.parent for path in _prefix(pool, config).glob(f"*/{CHECKPOINT}")]
    ends = {int(end.name): end for end in found if end.name.isdecimal()}
    for steps in sorted(ends, reverse=True):
        if steps < config.steps and _whole(ends[steps]):
            _copy(ends[steps] / METRICS, folder / METRICS)
            copy(ends[steps] / CHECKPOINT, folder / CHECKPOINT)
            return


def _whole(end: Path) -> bool:
    path, log = end / CHECKPOINT, end / METRICS
    if not take(path):
        return False
    state = read_state(path)
    if log_sha256(log, state["step"]) == state["log"]:
        return True
    tell(f"{log} is not what was written there (its sha256 differs): the steps are made again")
    drop(path)
    return False


def _prefix(pool: Path, config: TrainConfig) -> Path:
    return pool / config.prefix_id()[:16]


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda part: shutil.copyfile(source, part))
