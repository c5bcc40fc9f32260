"""Labels by a reward: the same pairs, each ranked anew by its scores (AI feedback)."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from bench.pairs.kept import KeptScores, Two, score_key
from bench.rewards.base import Reward
from bench.rewards.engine import run
from trainers.data.preprocess import ERRORS
from trainers.data.sources import BadPair, Rows, Source
from trainers.errors import UserError
from trainers.files import write_atomically
from trainers.input.paths import writable_folder

GROUP = 64
"""Pairs that are scored at a time, and rows in a row group."""
SCHEMA = pa.schema(
    [
        ("caption", pa.string()), ("jpg_0", pa.binary()), ("jpg_1", pa.binary()),
        ("label_0", pa.float64()), ("label_1", pa.float64()), ("has_label", pa.bool_()),
        ("score_0", pa.float32()), ("score_1", pa.float32()),
    ]
)  # fmt: skip


@dataclass
class Labelled:
    """What became of the rows of a source."""

    signature: str
    written: int = 0
    ties: int = 0
    unscored: int = 0
    """Written with ``has_label`` false, because a score was not finite."""
    damaged: int = 0
    """Left out, because an image could not be read."""
    agree: int = 0
    """Pairs decided both before and now that are decided alike."""
    decided: int = 0
    """Pairs decided both before and now."""


def label_pairs(source: Source, reward: Reward, out: Path, tie: float) -> Labelled:
    """Write the pairs of a source to ``out``, labelled by which image scores better.

    Until ``out`` is whole, scores are kept in a hidden file beside it: after an interruption the
    same call goes on with the next pairs, and leaves the bytes of an undisturbed one.

    Args:
        source: Where the pairs come from; its own labels are only compared with.
        reward: What judges.
        out: A parquet file in the schema of Pick-a-Pic, with the scores in two columns more and
            the signature of the reward in the metadata ``labelled_by``.
        tie: Scores that differ by no more are a tie.

    Raises:
        UserError: If ``out`` is there already, or no pair can be read.
    """
    if out.exists():
        raise UserError(f"{out} is there already: give another name, or delete it")
    writable_folder(out.parent)
    rows = source.open()
    done = Labelled(reward.signature)
    schema = SCHEMA.with_metadata({"labelled_by": done.signature, "tie": repr(tie)})
    kept = KeptScores(out.with_name(f".{out.name}.scores"))

    def write(part: Path) -> None:
        with pq.ParquetWriter(part, schema) as writer:
            for group in _groups(rows, kept, done):
                scores = _scores(group, reward, kept)
                labelled = _label(rows, group, scores, reward, tie, done)
                writer.write_table(pa.Table.from_pylist(labelled, schema))
        if not done.written:
            raise UserError(f"no pair of the {len(rows)} rows can be read")

    write_atomically(out, write)
    kept.remove()
    return done


class _Pair(NamedTuple):
    row: int
    prompt: str
    data: tuple[bytes, bytes]
    key: str
    images: tuple[Image.Image, Image.Image] | None
    """None where the scores are there: the images were read for these."""


def _groups(rows: Rows, kept: KeptScores, done: Labelled) -> Iterator[list[_Pair]]:
    """Pairs that can be read, the same ones together whether or not they have scores already."""
    group: list[_Pair] = []
    for row in range(len(rows)):
        prompt = str(rows.prompts[row])
        try:
            data = rows.images(row)
            key = score_key(done.signature, row, prompt, data)
            group.append(_Pair(row, prompt, data, key, None if key in kept else _both(data)))
        except (BadPair, *ERRORS):
            done.damaged += 1
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def _both(data: tuple[bytes, bytes]) -> tuple[Image.Image, Image.Image]:
    return _open(data[0]), _open(data[1])


def _open(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _scores(group: Sequence[_Pair], reward: Reward, kept: KeptScores) -> list[Two]:
    """Those that are kept, if all are: a score's last bits may depend on its batch."""
    if all(pair.images is None for pair in group):
        return [kept[pair.key] for pair in group]
    images = [pair.images or _both(pair.data) for pair in group]
    prompts = [pair.prompt for pair in group]
    zero, one = (run(reward, [two[side] for two in images], prompts) for side in (0, 1))
    scores = list(zip(zero.tolist(), one.tolist(), strict=True))
    kept.add([pair.key for pair in group], scores)
    return scores


def _label(
    rows: Rows,
    group: Sequence[_Pair],
    scores: Sequence[Two],
    reward: Reward,
    tie: float,
    done: Labelled,
) -> list[dict[str, Any]]:
    sign = 1.0 if reward.card.direction == "higher" else -1.0
    found = []
    for pair, (first, second) in zip(group, scores, strict=True):
        gap = sign * (first - second)
        judged = math.isfinite(gap)
        label = 0.5 if not judged or abs(gap) <= tie else float(gap > 0)
        done.written += 1
        done.ties += judged and label == 0.5
        done.unscored += not judged
        if judged and label != 0.5 and rows.labels[pair.row] in (0.0, 1.0):
            done.decided += 1
            done.agree += label == rows.labels[pair.row]
        found.append(
            {
                "caption": pair.prompt, "jpg_0": pair.data[0], "jpg_1": pair.data[1],
                "label_0": label, "label_1": 1 - label, "has_label": judged, "score_0": first,
                "score_1": second,
            }
        )  # fmt: skip
    return found
