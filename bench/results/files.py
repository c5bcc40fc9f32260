"""The files of a result folder: their names, and how they are written, read and verified.

    scores.parquet   one row per image and reward
    protocol.json    what was declared: :class:`bench.results.protocol.Protocol`
    manifest.json    where it came from: :class:`bench.results.manifest.Manifest`

What is rendered beside them follows from the first two alone; see :mod:`bench.report`. Protocol
and manifest hold the sha256 of what else they say, and the protocol that of the scores: what was
damaged is never rendered.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.results.analysis import Results, analyse
from bench.results.manifest import Manifest
from bench.results.protocol import Protocol, Record
from trainers.errors import UserError
from trainers.files import (
    as_json,
    sha256_file,
    write_atomically,
    write_text,
)
from trainers.input.checked import check, shown
from trainers.input.paths import is_regular, read_bytes
from trainers.input.text import read_json
from trainers.sealed import open_record, seal_record

SCORES = "scores.parquet"
PROTOCOL = "protocol.json"
MANIFEST = "manifest.json"
SCHEMA = 3
"""Of protocol and manifest. Raised when a file of before can no longer be read."""
UNSEALED = 2
"""The schema of before there were sha256; see :func:`seal`."""
SCORES_SHA256 = "scores_sha256"
"""Key of the sha256 of the scores, in the protocol's file."""
OLD_PROTOCOL = "plan.json"
"""What stood in the place of the protocol in schema 1."""
COLUMNS = ("exp", "arm", "run_id", "train_seed", "prompt_id", "k", "image_sha256", "reward",
           "signature", "score")  # fmt: skip
"""Of the scores; ``train_seed`` is null for the base model, ``score`` where it is not finite."""
_TEXT = pa.dictionary(pa.int32(), pa.string())
ANALYSED = {
    "arm": _TEXT, "run_id": _TEXT, "train_seed": pa.int64(), "prompt_id": _TEXT, "k": pa.int64(),
    "reward": _TEXT, "signature": _TEXT, "score": pa.float64(),
}  # fmt: skip
"""Columns that are analysed, and as what they are read: a text that is repeated is kept once."""
_NULLABLE = ("train_seed", "score")
INTEGERS = {pa.int64(): pd.Int64Dtype()}
"""Training seeds fill 64 bits, and the base model has none."""

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
    _write(folder / PROTOCOL, protocol, {SCORES_SHA256: sha256_file(folder / SCORES)})
    (folder / OLD_PROTOCOL).unlink(missing_ok=True)


def _write(path: Path, record: Record, more: dict[str, str] | None = None) -> None:
    said = {**(more or {}), **record.model_dump(mode="json")}
    write_text(path, as_json({"schema": SCHEMA, **seal_record(said)}))


def seal(folder: Path) -> None:
    """Bring a folder of the schema before to this one, its scores being what they were.

    That is for the caller to know, by what was rendered from them. Protocol comes last.

    Raises:
        UserError: As :func:`read_scores`.
    """
    protocol, _ = _read(folder / PROTOCOL, Protocol, UNSEALED)
    if (folder / MANIFEST).exists() and schema(folder / MANIFEST) == UNSEALED:
        _write(folder / MANIFEST, _read(folder / MANIFEST, Manifest, UNSEALED)[0])
    _write(folder / PROTOCOL, protocol, {SCORES_SHA256: sha256_file(folder / SCORES)})


def read_protocol(folder: Path) -> Protocol:
    """The protocol of a result folder.

    Raises:
        UserError: If it is missing, damaged, or of another schema.
    """
    return _read(folder / PROTOCOL, Protocol)[0]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a result folder.

    Raises:
        UserError: If it is missing, damaged, or of another schema.
    """
    return _read(folder / MANIFEST, Manifest)[0]


def read_scores(folder: Path, schema: int = SCHEMA) -> tuple[pd.DataFrame, Protocol]:
    """The scores of a result folder, and the protocol that they are to be analysed by.

    Columns are those of :data:`ANALYSED`, texts as categories.

    Raises:
        UserError: If one is missing, damaged or of another schema, or they do not fit.
    """
    protocol, table = read_columns(folder, [*ANALYSED], schema)
    try:
        columns = [table[name].cast(kind) for name, kind in ANALYSED.items()]
    except (ValueError, NotImplementedError) as error:
        raise _damaged(folder / SCORES, "not a table of scores") from error
    for name, column in zip(ANALYSED, columns, strict=True):
        if column.null_count and name not in _NULLABLE:
            raise _damaged(folder / SCORES, f"a row has no {name}")
    scores = pa.table(columns, [*ANALYSED]).to_pandas(types_mapper=INTEGERS.get)
    _verify(folder / SCORES, scores, protocol)
    return scores, protocol


def read_columns(
    folder: Path, columns: Sequence[str], schema: int = SCHEMA
) -> tuple[Protocol, pa.Table]:
    """The protocol of a result folder, and columns of its scores.

    Raises:
        UserError: As :func:`read_scores`.
    """
    _present(folder / SCORES)
    protocol, sha256 = _read(folder / PROTOCOL, Protocol, schema)
    data = read_bytes(folder / SCORES)
    if sha256 is not None and sha256 != (found := hashlib.sha256(data).hexdigest()):
        why = f"{PROTOCOL} records sha256 {sha256[:16]}, this is {found[:16]}"
        raise _damaged(folder / SCORES, why)
    try:
        return protocol, pq.read_table(
            pa.BufferReader(data), columns=[*columns], read_dictionary=[*columns]
        )
    except (ValueError, OSError) as error:
        raise _damaged(folder / SCORES, "not a table of scores") from error


def read_results(folder: Path, schema: int = SCHEMA) -> Results:
    """Analyse the scores of a result folder by its protocol.

    Raises:
        UserError: As :func:`read_scores`.
    """
    return analyse(*read_scores(folder, schema))


def schema(path: Path) -> object:
    """The schema that a protocol or a manifest says it has.

    Raises:
        UserError: If it says none.
    """
    return _open(path)["schema"]


def _open(path: Path) -> dict[str, Any]:
    _present(path)
    try:
        data = read_json(path)
    except UserError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(data, dict) or "schema" not in data:
        raise _damaged(path, "not JSON with a schema")
    if data["schema"] == UNSEALED and "sha256" in data:
        raise _damaged(path, "a schema that knows no sha256, and one beside it")
    return data


def _read(path: Path, kind: type[R], schema: int = SCHEMA) -> tuple[R, str | None]:
    """What a file records, and the sha256 of the scores if it knows that."""
    data = _open(path)
    if (found := data.pop("schema")) != schema or type(found) is not int:
        raise _other_schema(path, found)
    if schema != UNSEALED:
        if (said := open_record(data)) is None:
            raise _damaged(path, "its sha256 is not that of what it says")
        data = said
    sha256 = data.pop(SCORES_SHA256, None)
    try:
        return check(kind, data), sha256
    except UserError as error:
        raise _damaged(path, str(error)) from error


def _verify(path: Path, scores: pd.DataFrame, protocol: Protocol) -> None:
    """Refuse scores that were not made by the rewards that the protocol declares, or of others."""
    for column, declared in _declared(protocol).items():
        found = scores[column].dropna().unique().tolist()
        if lost := [value for value in found if value not in declared]:
            raise UserError(
                f"{path} holds scores of {column} {shown(lost[0])}, which {PROTOCOL} does not "
                "declare: restore both files together"
            )
    made = scores[["reward", "signature"]].drop_duplicates()
    for reward in protocol.rewards:
        signatures = [*made["signature"][made["reward"] == reward.name]]
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


def _declared(protocol: Protocol) -> dict[str, set[Any]]:
    seeds = {seed for arm in protocol.all_arms() for seed in arm.seeds}
    return {"prompt_id": {*protocol.prompts.ids}, "train_seed": seeds}


def _present(path: Path) -> None:
    if path.name == PROTOCOL and not path.exists() and is_regular(path.with_name(OLD_PROTOCOL)):
        raise _other_schema(path.with_name(OLD_PROTOCOL), 1)
    if not is_regular(path):
        raise UserError(
            f"{path.parent} holds no {path.name}: give a folder that 'bench ablate' has written"
        )


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is damaged: run the 'bench ablate' again that has written it, or restore the file "
        f"({why})"
    )


def _other_schema(path: Path, schema: object) -> UserError:
    if schema == UNSEALED:
        return UserError(
            f"{path} has schema {schema}, which knows no sha256 of its scores: run 'bench table "
            f"{path.parent}', which adds it if the tables there are what the scores give"
        )
    return UserError(
        f"{path} has schema {schema}, and this dpo-bench reads {SCHEMA}: run the 'bench ablate' "
        "again that has written it, or use the version of dpo-bench that has"
    )
