"""The files of a result folder: their names, and how they are written, read and verified.

    scores.parquet   one row per image and reward
    protocol.json    what was declared: :class:`bench.results.protocol.Protocol`
    manifest.json    where it came from: :class:`bench.results.manifest.Manifest`

What is rendered beside them follows from the first two alone; see :mod:`bench.report`.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.results.analysis import Results, analyse
from bench.results.manifest import Manifest
from bench.results.protocol import Protocol, Record
from trainers.errors import UserError
from trainers.files import as_json, write_atomically, write_text
from trainers.input.checked import check

SCORES = "scores.parquet"
PROTOCOL = "protocol.json"
MANIFEST = "manifest.json"
SCHEMA = 2
"""Of protocol and manifest. Raised when a file of before can no longer be read."""
OLD_PROTOCOL = "plan.json"
"""What stood in the place of the protocol in schema 1."""
COLUMNS = ("exp", "arm", "run_id", "train_seed", "prompt_id", "k", "image_sha256", "reward",
           "signature", "score")  # fmt: skip
"""Of the scores; ``train_seed`` is null for the base model, ``score`` where it is not finite."""

R = TypeVar("R", bound=Record)


def write_results(
    folder: Path, protocol: Protocol, scores: pa.Table, manifest: Manifest | None
) -> None:
    """Write what tables are made from; a manifest that is there stays if None is given.

    The manifest comes first: wherever this is interrupted, no scores lie there without it.
    """
    if manifest is not None:
        _write(folder / MANIFEST, manifest)
    write_atomically(folder / SCORES, lambda p: pq.write_table(scores, p, compression="zstd"))
    _write(folder / PROTOCOL, protocol)
    (folder / OLD_PROTOCOL).unlink(missing_ok=True)


def _write(path: Path, record: Record) -> None:
    write_text(path, as_json({"schema": SCHEMA, **record.model_dump(mode="json")}))


def read_protocol(folder: Path) -> Protocol:
    """The protocol of a result folder.

    Raises:
        UserError: If it is missing, damaged, or of another schema.
    """
    if not (folder / PROTOCOL).is_file() and (folder / OLD_PROTOCOL).is_file():
        raise _other_schema(folder / OLD_PROTOCOL, 1)
    return _read(folder / PROTOCOL, Protocol)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a result folder.

    Raises:
        UserError: If it is missing, damaged, or of another schema.
    """
    return _read(folder / MANIFEST, Manifest)


def read_scores(folder: Path) -> tuple[pd.DataFrame, Protocol]:
    """The scores of a result folder, and the protocol that they are to be analysed by.

    Raises:
        UserError: If one is missing, damaged or of another schema, or they do not fit.
    """
    _present(folder / SCORES)
    protocol = read_protocol(folder)
    try:
        with (folder / SCORES).open("rb") as stream:  # Opened once: it may be replaced meanwhile.
            scores: pd.DataFrame = pq.read_table(stream, columns=[*COLUMNS]).to_pandas()
    except ValueError as error:
        raise _damaged(folder / SCORES, "not a table of scores") from error
    _verify(folder / SCORES, scores, protocol)
    return scores, protocol


def read_results(folder: Path) -> Results:
    """Analyse the scores of a result folder by its protocol.

    Raises:
        UserError: As :func:`read_scores`.
    """
    return analyse(*read_scores(folder))


def _read(path: Path, kind: type[R]) -> R:
    _present(path)
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        schema = data.pop("schema")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, "not JSON with a schema") from error
    if schema != SCHEMA:
        raise _other_schema(path, schema)
    try:
        return check(kind, data)
    except UserError as error:
        raise _damaged(path, str(error)) from error


def _verify(path: Path, scores: pd.DataFrame, protocol: Protocol) -> None:
    """Refuse scores that were not made by the rewards that the protocol declares."""
    found = scores.groupby("reward")["signature"].unique()
    for reward in protocol.rewards:
        signatures = [*found.get(reward.name, ())]
        if len(signatures) > 1:
            raise UserError(
                f"{path} mixes scores of different signatures for {reward.name}: score all images "
                "with one version of the reward"
            )
        if signatures not in ([], [reward.signature]):
            raise UserError(
                f"{path} holds scores of {signatures[0]}, but {PROTOCOL} declares "
                f"{reward.signature}: run the 'bench ablate' again that has written them"
            )


def _present(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path.parent} holds no {path.name}: give a folder that 'bench ablate' has written"
        )


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: run the 'bench ablate' again that has written it ({why})")


def _other_schema(path: Path, schema: object) -> UserError:
    return UserError(
        f"{path} has schema {schema}, and this dpo-bench reads {SCHEMA}: run the 'bench ablate' "
        "again that has written it, or use the version of dpo-bench that has"
    )
