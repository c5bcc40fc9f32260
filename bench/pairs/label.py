"""Labels by a reward: the same pairs, each ranked anew by its scores (AI feedback)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.pairs.kept import KeptScores, Two, score_key
from bench.rewards.base import Reward
from bench.rewards.engine import describe, run_each
from trainers.data.sources import BadPair, Rows, Source
from trainers.errors import UserError
from trainers.files import make_writable, write_atomically
from trainers.input.image import BadImage, open_rgb

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
    """Left out, because an image could not be read, or the reward failed at it."""
    reasons: list[str] = field(default_factory=list)
    """Place and reason of each pair that was left out."""
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
    make_writable(out.parent)
    rows = source.open()
    done = Labelled(reward.signature)
    schema = SCHEMA.with_metadata({"labelled_by": done.signature, "tie": repr(tie)})
    kept = KeptScores(out.with_name(f".{out.name}.scores"))

    def write(part: Path) -> None:
        with pq.ParquetWriter(part, schema) as writer:
            for whole in _groups(rows, kept, done):
                group, scores = _scores(whole, rows, reward, kept, done)
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
        except (BadPair, BadImage) as error:
            done.damaged += 1
            done.reasons.append(f"{rows.place(row)}: {error}")
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def _both(data: tuple[bytes, bytes]) -> tuple[Image.Image, Image.Image]:
    return open_rgb(data[0]), open_rgb(data[1])


def _scores(
    group: Sequence[_Pair], rows: Rows, reward: Reward, kept: KeptScores, done: Labelled
) -> tuple[list[_Pair], list[Two]]:
    """The pairs that the reward can score, and their scores.

    Scores that are kept count, if all are: a score's last bits may depend on its batch.

    Raises:
        UserError: If the reward fails at all of them, and none was labelled before.
    """
    if all(pair.images is None for pair in group):
        return list(group), [kept[pair.key] for pair in group]
    images = [pair.images or _both(pair.data) for pair in group]
    prompts = [pair.prompt for pair in group]
    try:
        zero, one = (run_each(reward, [two[side] for two in images], prompts) for side in (0, 1))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{reward.card.name}: {describe(error)}") from error
    failed = {**one[1], **zero[1]}
    reasons = [f"{rows.place(group[i].row)}: {describe(failed[i])}" for i in sorted(failed)]
    if len(failed) == len(group) and not done.written:
        raise UserError(f"{reward.card.name}: {reasons[0]}")
    done.damaged += len(failed)
    done.reasons += reasons
    left = [i for i in range(len(group)) if i not in failed]
    scored, scores = [group[i] for i in left], [(zero[0][i], one[0][i]) for i in left]
    kept.add([pair.key for pair in scored], scores)
    return scored, scores


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
