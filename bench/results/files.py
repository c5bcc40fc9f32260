"""The files of a result folder: their names, and how they are written, read and verified.

    scores.parquet   one row per image and reward
    steps.parquet    one row per run and step: :mod:`bench.results.steps`
    scales.parquet   lambda(t) of every arm: :mod:`bench.results.steps`
    images.parquet   one row per image, and which lie in pictures/: :mod:`bench.results.pictures`
    protocol.json    what was declared: :class:`bench.results.protocol.Protocol`
    manifest.json    where it came from: :class:`bench.results.manifest.Manifest`

Tables follow from scores and protocol alone; see :mod:`bench.report`. Protocol and manifest hold
the sha256 of what else they say, and the protocol those of the tables of data: what was damaged is
never rendered. Steps, scales and images are not in every folder.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
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
STEPS = "steps.parquet"
SCALES = "scales.parquet"
IMAGES = "images.parquet"
PROTOCOL = "protocol.json"
MANIFEST = "manifest.json"
SCHEMA = 4
"""Of protocol and manifest. Raised when an earlier dpo-bench cannot read a folder any more."""
READABLE = (3, SCHEMA)
"""The first of them is of before there were steps and images."""
UNSEALED = 2
"""The schema of before there were sha256; see :func:`seal`."""
SHA256 = {
    SCORES: "scores_sha256", STEPS: "steps_sha256", SCALES: "scales_sha256",
    IMAGES: "images_sha256",
}  # fmt: skip
"""Keys of the sha256 of the tables of data, in the protocol's file."""
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
    folder: Path,
    protocol: Protocol,
    scores: pa.Table,
    manifest: Manifest | None,
    more: Mapping[str, pa.Table] | None = None,
) -> None:
    """Write what tables are made from; a manifest that is there stays if None is given.

    The manifest comes first: wherever this is interrupted, no scores lie there without it.

    Args:
        folder: Where to.
        protocol: The declared analysis.
        scores: Of the columns ``COLUMNS``.
        manifest: Where they came from.
        more: Of ``STEPS``, ``SCALES`` and ``IMAGES``, what there is; what is not given
            is deleted.
    """
    if manifest is not None:
        _write(folder / MANIFEST, manifest)
    data = {SCORES: scores, **(more or {})}
    for name, table in data.items():
        write_atomically(folder / name, partial(pq.write_table, table, compression="zstd"))
    _write(folder / PROTOCOL, protocol, {SHA256[n]: sha256_file(folder / n) for n in data})
    for gone in (OLD_PROTOCOL, *(name for name in SHA256 if name not in data)):
        (folder / gone).unlink(missing_ok=True)


def _write(path: Path, record: Record, more: Mapping[str, str] | None = None) -> None:
    said = {**(more or {}), **record.model_dump(mode="json")}
    write_text(path, as_json({"schema": SCHEMA, **seal_record(said)}))


def seal(folder: Path) -> None:
    """Bring a folder of the schema before to this one, its scores being what they were.

    That is for the caller to know, by what was rendered from them. Protocol comes last.

    Raises:
        UserError: As :func:`read_scores`.
    """
    protocol, _ = _read(folder / PROTOCOL, Protocol, (UNSEALED,))
    if (folder / MANIFEST).exists() and schema(folder / MANIFEST) == UNSEALED:
        _write(folder / MANIFEST, _read(folder / MANIFEST, Manifest, (UNSEALED,))[0])
    _write(folder / PROTOCOL, protocol, {SHA256[SCORES]: sha256_file(folder / SCORES)})


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


def read_scores(folder: Path, schemas: tuple[int, ...] = READABLE) -> tuple[pd.DataFrame, Protocol]:
    """The scores of a result folder, and the protocol that they are to be analysed by.

    Columns are those of :data:`ANALYSED`, texts as categories.

    Raises:
        UserError: If one is missing, damaged or of another schema, or they do not fit.
    """
    protocol, table = read_columns(folder, [*ANALYSED], schemas)
    try:
        columns = [table[name].cast(kind) for name, kind in ANALYSED.items()]
    except (ValueError, NotImplementedError) as error:
        raise damaged(folder / SCORES, "not a table of scores") from error
    for name, column in zip(ANALYSED, columns, strict=True):
        if column.null_count and name not in _NULLABLE:
            raise damaged(folder / SCORES, f"a row has no {name}")
    scores = pa.table(columns, [*ANALYSED]).to_pandas(types_mapper=INTEGERS.get)
    _verify(folder / SCORES, scores, protocol)
    return scores, protocol


def read_columns(
    folder: Path, columns: Sequence[str], schemas: tuple[int, ...] = READABLE
) -> tuple[Protocol, pa.Table]:
    """The protocol of a result folder, and columns of its scores.

    Raises:
        UserError: As :func:`read_scores`.
    """
    _present(folder / SCORES)
    protocol, sha256 = _read(folder / PROTOCOL, Protocol, schemas)
    return protocol, _table(folder / SCORES, sha256.get(SCORES), columns)


def read_data(folder: Path, name: str) -> pa.Table | None:
    """``STEPS``, ``SCALES`` or ``IMAGES`` of a result folder; None where it has none.

    Raises:
        UserError: If it, or the protocol, is missing or damaged.
    """
    _, sha256 = _read(folder / PROTOCOL, Protocol)
    return _table(folder / name, sha256[name]) if name in sha256 else None


def _table(path: Path, sha256: str | None, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of data, or columns of it, if it is the one that the protocol records."""
    _present(path)
    data = read_bytes(path)
    if sha256 is not None and sha256 != (found := hashlib.sha256(data).hexdigest()):
        raise damaged(path, f"{PROTOCOL} records sha256 {sha256[:16]}, this is {found[:16]}")
    try:
        return pq.read_table(
            pa.BufferReader(data),
            columns=columns and [*columns],
            read_dictionary=columns and [*columns],
        )
    except (ValueError, OSError) as error:
        raise damaged(path, f"not a table of {path.stem}") from error


def read_results(folder: Path, schemas: tuple[int, ...] = READABLE) -> Results:
    """Analyse the scores of a result folder by its protocol.

    Raises:
        UserError: As :func:`read_scores`.
    """
    return analyse(*read_scores(folder, schemas))


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
        raise damaged(path, str(error)) from error
    if not isinstance(data, dict) or "schema" not in data:
        raise damaged(path, "not JSON with a schema")
    if data["schema"] == UNSEALED and "sha256" in data:
        raise damaged(path, "a schema that knows no sha256, and one beside it")
    return data


def _read(
    path: Path, kind: type[R], schemas: tuple[int, ...] = READABLE
) -> tuple[R, dict[str, str]]:
    """What a file records, and the sha256 of tables of data that it knows, by their names."""
    data = _open(path)
    if (found := data.pop("schema")) not in schemas or type(found) is not int:
        raise _other_schema(path, found)
    if found != UNSEALED:
        if (said := open_record(data)) is None:
            raise damaged(path, "its sha256 is not that of what it says")
        data = said
    sha256 = {name: data.pop(key) for name, key in SHA256.items() if key in data}
    try:
        return check(kind, data), sha256
    except UserError as error:
        raise damaged(path, str(error)) from error


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


def damaged(path: Path, why: str) -> UserError:
    """What is told of a file of a result folder that is not as it was written."""
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
