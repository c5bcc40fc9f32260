"""Scores of images by several rewards, in one file that is also the cache of the job."""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import csv

from bench.images.read import Item
from bench.official.client import WorkerLost
from bench.rewards import REWARDS
from bench.rewards.base import Reward, Scores
from bench.rewards.kit.shared import Shared
from bench.spec.model import Scoring
from trainers.errors import UserError
from trainers.files import clear_parts, write_atomically
from trainers.input.paths import read_bytes
from trainers.locks import locked
from trainers.registry import aside, told
from trainers.sealed import Seals, take, write_sealed

CHUNK = 32
"""Distinct images that are decoded at a time."""
SAVE_EVERY = 20.0
"""Seconds of scoring that a killed process may lose."""
SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("k", pa.int32()),
        ("image_sha256", pa.string()),
        ("reward", pa.string()),
        ("signature", pa.string()),
        ("score", pa.float32()),
        ("file", pa.string()),
    ]
)
"""``file`` is the image's name in its folder, null in rows of before there was this column."""
NO_SCORES = SCHEMA.empty_table()
CSV = ".csv"
"""Suffix of a file of scores that is comma-separated values; any other is parquet."""


class NoScores(UserError):
    """A reward gave something else than a number for each image: its fault, and no image's."""


Key = tuple[str, str, str]
"""Signature, sha256 of the image, prompt: all that a score depends on."""


@dataclass
class Scored:
    """What became of a job: finite scores, and why others are missing."""

    scores: dict[Key, float]
    signatures: dict[str, str] = field(default_factory=dict)
    """By reward; one whose weights were not found has none."""
    failed: dict[str, Exception] = field(default_factory=dict)
    """Why a reward stopped, by its name."""
    unread: dict[str, UserError] = field(default_factory=dict)
    """Why an image could not be read, by its name."""
    refused: dict[tuple[str, str], Exception] = field(default_factory=dict)
    """Why a reward has no score of an image, by both names."""
    tell: Callable[[str, Exception], None] = lambda name, error: None
    """Told at once when a reward stops."""

    def key(self, reward: str, item: Item) -> Key:
        """What the score of an item is found by."""
        return (self.signatures.get(reward, ""), item.sha256, item.prompt)

    def of(self, reward: str, items: Sequence[Item]) -> list[float | None]:
        """The score of each item, None where there is none."""
        return [self.scores.get(self.key(reward, item)) for item in items]

    def missing(self) -> list[str]:
        """A line for each image that could not be read, or that a reward could not score."""
        return [
            *map(str, self.unread.values()),
            *(f"{image}: {name}: {describe(why)}" for (name, image), why in self.refused.items()),
        ]

    def has_scored(self, reward: str) -> bool:
        """Whether there is any score of a reward, be it of an earlier job."""
        signature = self.signatures[reward]
        return any(known == signature for known, _, _ in self.scores)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Whatever goes wrong inside stops the reward called ``name`` alone, and is told."""
        try:
            with aside():
                yield
        except (Exception, SystemExit) as error:
            why = error if isinstance(error, Exception) else RuntimeError(told(error))
            self.failed[name] = why
            self.tell(name, why)


def describe(error: Exception) -> str:
    """One line for what stopped a reward."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if _wants_memory(error):
        text += " (try a smaller --batch-size, --dtype bfloat16 or another --device)"
    return text


def make_reward(name: str, settings: Scoring, shared: Shared) -> Reward:
    """A reward as a spec or a command line asks for it."""
    kind = REWARDS.get(name)
    with aside():
        reward = kind(
            weights=settings.weights.get(name),
            device=settings.device,
            dtype=settings.dtype,
            shared=shared,
        )
    if settings.batch_size is not None:
        reward.batch_size = settings.batch_size
    reward.matmul = settings.matmul
    return reward


def run(reward: Reward, images: Sequence[Image.Image], prompts: Sequence[str]) -> Scores:
    """Scores ``float32[n]`` of image ``i`` against prompt ``i``, multiplied as the reward says."""
    reward.load()
    if "torch" in sys.modules:  # A rule loads none.
        from trainers.machine.execution import set_matmul

        set_matmul(reward.matmul)
    scores = np.asarray(reward.score(images, prompts))
    if scores.shape != (len(images),) or scores.dtype.kind not in "fiu":
        raise NoScores(
            f"reward {reward.card.name!r}: expected a score for each of {len(images)} images, got "
            f"an array of {scores.dtype} and shape {scores.shape}"
        )
    with np.errstate(over="ignore"):  # An infinite score is a missing one.
        return scores.astype(np.float32)


def run_each(
    reward: Reward, images: Sequence[Image.Image], prompts: Sequence[str]
) -> tuple[list[float], dict[int, Exception]]:
    """As :func:`run`, with NaN and a reason for each image that the reward fails at.

    What fails together is scored in halves, and so on.

    Raises:
        Exception: What the reward raises if it cannot be loaded, or lacks memory.
    """
    reward.load()
    scores = [math.nan] * len(images)
    reasons: dict[int, Exception] = {}
    waiting = [range(len(images))]
    while waiting:
        part = waiting.pop()
        try:
            found = run(reward, images[part.start : part.stop], prompts[part.start : part.stop])
            scores[part.start : part.stop] = found.tolist()
        except Exception as error:
            if _wants_memory(error) or isinstance(error, WorkerLost | NoScores):
                raise
            if len(part) == 1:
                reasons[part.start] = error
            else:
                middle = part.start + len(part) // 2
                waiting += [range(middle, part.stop), range(part.start, middle)]
    return scores, reasons


def _wants_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error)


def score_items(
    items: Sequence[Item],
    rewards: Mapping[str, Reward],
    path: Path,
    memory: int | None = None,
    report: Callable[[str, int], None] = lambda name, count: None,
    tell: Callable[[str, Exception], None] = lambda name, error: None,
) -> Scored:
    """Score every item by every reward into ``path``, except what is there already.

    A reward that fails stops alone; what it has scored is kept. An image that cannot be read, or
    that a reward fails at, is left out alone. A score that is missing or not finite is written as
    null, and is tried again when the same job runs again.

    Args:
        items: Images with their prompts.
        rewards: By name; models are loaded here.
        path: The file, in ``SCHEMA``; csv by its suffix, parquet otherwise. Rows of other images
            and rewards stay, and so do those that another process writes at the same time.
        memory: Bytes that models may take at a time; rewards that do not fit together take turns.
        report: Told the name of a reward and how many of its items it is through with.
        tell: Told the name of a reward that stops, at once, and why.
    """
    path = path.resolve()  # One file, one lock, whatever links lead there.
    with locked(_lock(path)):
        job = Scored(_finite(_read(path)), tell=tell)
    for name, reward in rewards.items():
        with job.guard(name):
            hash(reward.model_key), int(reward.memory)  # What can fail, fails here.
            job.signatures[name] = reward.signature
    saved = time.monotonic()
    try:
        for group in _passes({n: rewards[n] for n in job.signatures}, memory):
            through = 0
            for chunk in _chunks(items):
                _score_chunk(job, chunk, group)
                through += len(chunk)
                for name in group:
                    report(name, through)
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(path, items, job)
                    saved = time.monotonic()
    finally:
        _save(path, items, job)
    return job


def by_model(rewards: Mapping[str, Reward]) -> list[list[str]]:
    """Names of rewards, those together that share a model."""
    names: dict[Hashable, list[str]] = {}
    for name, reward in rewards.items():
        names.setdefault(reward.model_key, []).append(name)
    return list(names.values())


def _passes(rewards: Mapping[str, Reward], memory: int | None) -> Iterator[dict[str, Reward]]:
    """Groups of rewards whose models fit into memory together, those that share one adjacent."""
    group: dict[str, Reward] = {}
    size = 0
    for sharing in by_model(rewards):
        more = max(rewards[name].memory for name in sharing)
        if group and memory is not None and size + more > memory:
            yield group
            group, size = {}, 0
        group |= {name: rewards[name] for name in sharing}
        size += more
    if group:
        yield group


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Items of ``CHUNK`` distinct images at a time, all those of an image together."""
    by_image: dict[str, list[Item]] = {}
    for item in items:
        by_image.setdefault(item.sha256 or item.name, []).append(item)
    groups = list(by_image.values())
    for start in range(0, len(groups), CHUNK):
        yield [item for group in groups[start : start + CHUNK] for item in group]


def _score_chunk(job: Scored, chunk: Sequence[Item], group: Mapping[str, Reward]) -> None:
    images: dict[str, Image.Image] = {}
    for name, reward in group.items():
        if name in job.failed:
            continue
        wanted = [item for item in chunk if job.key(name, item) not in job.scores]
        _open(job, wanted, images)
        wanted = [item for item in wanted if item.sha256 in images]
        todo = list({job.key(name, item): item for item in wanted}.values())
        if not todo:
            continue
        with job.guard(name):
            shown, prompts = [images[item.sha256] for item in todo], [item.prompt for item in todo]
            values, reasons = run_each(reward, shown, prompts)
            if len(reasons) == len(todo) and not job.has_scored(name):
                raise reasons[0]  # It is not the images.
            keys = [job.key(name, item) for item in todo]
            pairs = zip(keys, values, strict=True)
            job.scores |= {key: value for key, value in pairs if math.isfinite(value)}
            why = {keys[place]: error for place, error in reasons.items()}
            refused = (item for item in wanted if job.key(name, item) in why)
            job.refused |= {(name, item.name): why[job.key(name, item)] for item in refused}


def _open(job: Scored, items: Iterable[Item], images: dict[str, Image.Image]) -> None:
    for item in items:
        if item.sha256 not in images and item.name not in job.unread:
            try:
                images[item.sha256] = item.open()
            except UserError as error:
                job.unread[item.name] = error


def _read(path: Path) -> pa.Table:
    """Scores of an earlier or interrupted job, as it has written them.

    Raises:
        UserError: If the file is something else, or was changed since.
    """
    if not path.exists():
        return NO_SCORES
    data, seals = read_bytes(path), Seals.beside(path)
    if seals.names(path.name) and not seals.knows(hashlib.sha256(data).hexdigest(), path.name):
        raise UserError(
            f"{path}: expected scores that this command has written, got other bytes (the sha256 "
            "differs): restore the file or move it away, or give another one by --out"
        )
    try:
        table = _read_csv(data) if path.suffix == CSV else _read_parquet(data)
        if "file" not in table.column_names:
            table = table.append_column("file", pa.nulls(len(table), pa.string()))
        return table.cast(SCHEMA)
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise UserError(
            f"{path}: expected scores that this command has written, got {error}: move the file "
            "away, or give another one by --out"
        ) from error


def _read_parquet(data: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)


def _read_csv(data: bytes) -> pa.Table:
    """What :func:`pyarrow.csv.write_csv` writes, where a text is quoted and null is not."""
    convert = csv.ConvertOptions(
        column_types=SCHEMA, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    lines = csv.ParseOptions(newlines_in_values=True)
    return csv.read_csv(pa.BufferReader(data), parse_options=lines, convert_options=convert)


def _keys(table: pa.Table) -> list[Key]:
    columns = (table[name].to_pylist() for name in ("signature", "image_sha256", "prompt"))
    return list(zip(*columns, strict=True))


def _finite(table: pa.Table) -> dict[Key, float]:
    pairs = zip(_keys(table), table["score"].to_pylist(), strict=True)
    return {key: score for key, score in pairs if score is not None}


def _save(path: Path, items: Sequence[Item], job: Scored) -> None:
    """Write what a job has so far, and keep what is there, of another process perhaps."""
    with locked(_lock(path)):
        whole = _rows(items, job, _read(path))
        write_sealed(path, lambda part: _write(whole, part, path.suffix))


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def write_scores(path: Path, items: Sequence[Item], job: Scored) -> None:
    """Write rows of a job in the order of rewards and items."""
    write_atomically(path, lambda part: _write(_rows(items, job, NO_SCORES), part, path.suffix))


def _rows(items: Sequence[Item], job: Scored, old: pa.Table) -> pa.Table:
    """Rows of a job in the order of rewards and items, then those of earlier ones."""
    parts = []
    for name, signature in job.signatures.items():
        columns = {
            "prompt": [item.prompt for item in items],
            "k": [item.k for item in items],
            "image_sha256": [item.sha256 or None for item in items],
            "reward": [name] * len(items),
            "signature": [signature] * len(items),
            "score": job.of(name, items),
            "file": [item.name for item in items],
        }
        parts.append(pa.table(columns, schema=SCHEMA))
    mine = {key for part in parts for key in _keys(part)}
    parts.append(old.filter(pa.array([key not in mine for key in _keys(old)], pa.bool_())))
    return pa.concat_tables(parts)


def _write(table: pa.Table, path: Path, suffix: str) -> None:
    if suffix == CSV:
        csv.write_csv(table, path)
    else:
        pq.write_table(table, path, write_page_checksum=True)


def take_scores(path: Path) -> None:
    """Clear a file of scores away, and say so, unless it is as it was written."""
    with locked(_lock(path)):
        clear_parts(path.parent)
        take(path)


def available_memory(device: str) -> int:
    """Bytes that models may take: three quarters of what is free on a device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0] * 3 // 4
    return int(psutil.virtual_memory().available) * 3 // 4
