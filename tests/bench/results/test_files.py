"""What is read from a result folder is what was written there, or is refused in one line."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from bench.cli import run
from bench.report.folder import render, stale
from bench.results.analysis import analyse
from bench.results.files import (
    COLUMNS,
    MANIFEST,
    PROTOCOL,
    SCHEMA,
    SCORES,
    read_manifest,
    read_protocol,
    read_results,
    write_results,
)
from bench.results.protocol import Mark, Protocol
from trainers.errors import UserError
from trainers.files import canonical_json, sha256_text

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
ResultFolder = Callable[..., Path]
ARMS: tuple[dict[str, Any], ...] = (
    {"name": "base", "seeds": (None,)},
    {"name": "DPO", "seeds": (0, 1, 2)},
    {"name": "DPO+A", "seeds": (0, 1, 2)},
)
COMMITTED = Path(__file__).parents[3] / "results" / "first-world"


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_a_protocol_is_read_as_it_was_written(
    result_folder: ResultFolder, make_protocol: MakeProtocol
) -> None:
    truth, flaws = make_protocol().rewards
    marks = (Mark(kind="labelled"), Mark(kind="same-set", datasets=("a/train", "b")))
    protocol = make_protocol(
        {
            "rewards": (truth.model_copy(update={"marks": marks}), flaws),
            "pairs.data": {"name": "hub", "repository": "a/b"},
            "images.height": 64,
            "statistics.bound": 0.25,
            "statistics.share": None,
        }
    )
    folder = result_folder(protocol)
    assert read_protocol(folder) == protocol
    assert json.loads((folder / PROTOCOL).read_text())["schema"] == SCHEMA
    assert pq.read_schema(folder / "scores.parquet").names == list(COLUMNS)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, make_protocol: MakeProtocol) -> None:
    manifest = read_manifest(COMMITTED)
    scores = pq.read_table(COMMITTED / "scores.parquet")
    write_results(tmp_path, make_protocol(), scores, manifest)
    assert (tmp_path / MANIFEST).read_bytes() == (COMMITTED / MANIFEST).read_bytes()
    write_results(tmp_path, make_protocol(), scores, None)
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("name", ["scores.parquet", PROTOCOL])
def test_a_folder_without_results_is_refused(result_folder: ResultFolder, name: str) -> None:
    folder = result_folder()
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"holds no {re.escape(name)}: give a folder that 'bench a"):
        read_results(folder)


@pytest.mark.parametrize("name", ["scores.parquet", PROTOCOL])
@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_damaged_results_are_refused(result_folder: ResultFolder, name: str, text: str) -> None:
    folder = result_folder()
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=f"{re.escape(name)} is damaged: run") as caught:
        read_results(folder)
    assert "\n" not in str(caught.value)


def test_scores_without_a_column_are_refused(result_folder: ResultFolder) -> None:
    folder = result_folder()
    table = pq.read_table(folder / "scores.parquet")
    pq.write_table(table.drop_columns(["signature"]), folder / "scores.parquet")
    with pytest.raises(UserError, match=r"scores\.parquet is damaged: run"):
        read_results(folder)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("prompt_id", "p99", "holds scores of prompt_id 'p99', which protocol.json does not decl"),
        ("train_seed", 7, "holds scores of train_seed 7, which protocol.json does not declare"),
        ("k", None, r"is damaged: run .* \(a row has no k\)"),
        ("arm", None, r"is damaged: run .* \(a row has no arm\)"),
        ("k", "first", r"is damaged: run .* \(not a table of scores\)"),
        ("score", "high", r"is damaged: run .* \(not a table of scores\)"),
    ],
)
def test_scores_that_cannot_be_of_the_protocol_are_refused_in_one_line(
    result_folder: ResultFolder, make_protocol: MakeProtocol, make_scores: MakeScores,
    column: str, value: object, why: str,
) -> None:  # fmt: skip
    """Scores and protocol of two folders, say, that somebody has sealed together."""
    scores = make_scores(make_protocol()).astype({column: object})
    scores[column] = value if isinstance(value, str) and column != "prompt_id" else scores[column]
    scores.loc[30, column] = value
    with pytest.raises(UserError, match=why) as caught:
        result_folder(scores=scores)
    assert "\n" not in str(caught.value)


def test_training_seeds_of_64_bits_are_kept_apart(
    result_folder: ResultFolder, make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    """As floats these three would be one."""
    before = make_protocol()
    scores = make_scores(before, {"DPO": 0.25}, noise=0.1)
    seeds = {seed: 2**63 - 1 - seed for seed in (0, 1, 2)}
    trained = scores["arm"].str.startswith("DPO")
    scores.loc[trained, "train_seed"] = pd.array(
        [seeds[seed] for seed in scores.loc[trained, "train_seed"]], dtype="Int64"
    )
    large = {"seeds": tuple(seeds.values())}
    arms = (before.arms[0], *(arm.model_copy(update=large) for arm in before.arms[1:]))
    protocol = make_protocol({"arms": arms})
    folder = result_folder(protocol, scores)
    assert read_results(folder) == analyse(scores, protocol)


def test_an_older_folder_is_refused_in_one_line(
    result_folder: ResultFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = result_folder()
    (folder / PROTOCOL).rename(folder / "plan.json")
    assert run(["table", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"bench: {folder}/plan.json has schema 1, and this dpo-bench reads 4: run the 'bench "
        "ablate' again that has written it, or use the version of dpo-bench that has\n"
    )


@pytest.mark.parametrize("schema", [1, 5, "4", None])
def test_another_schema_is_refused(result_folder: ResultFolder, schema: object) -> None:
    folder = result_folder()
    change(folder / PROTOCOL, schema=schema)
    with pytest.raises(UserError, match=rf"protocol\.json has schema {schema}, and this dpo-bench"):
        read_results(folder)
    (folder / MANIFEST).write_text(json.dumps({"schema": schema}))
    with pytest.raises(UserError, match=rf"manifest\.json has schema {schema}, and this dpo-bench"):
        read_manifest(folder)


def test_what_an_older_version_has_left_is_cleared_away(
    result_folder: ResultFolder, make_protocol: MakeProtocol
) -> None:
    folder = result_folder()
    (folder / "plan.json").write_text("{}")
    write_results(folder, make_protocol(), pq.read_table(folder / "scores.parquet"), None)
    assert not (folder / "plan.json").exists()


def flips(path: Path, count: int) -> Iterator[bytes]:
    """A file's bytes, with one bit changed in turn, over all of it."""
    data = path.read_bytes()
    for n in range(count):
        changed = bytearray(data)
        changed[n * len(data) // count] ^= 1 << n % 8
        yield bytes(changed)


@pytest.mark.parametrize("name", [SCORES, PROTOCOL, MANIFEST])
def test_a_changed_bit_is_damage_and_never_staleness(tmp_path: Path, name: str) -> None:
    """Wherever it is; what bakes it in is not advised, and refuses."""
    folder = tmp_path / "mini"
    shutil.copytree(COMMITTED, folder)
    tables = {path.name: path.read_bytes() for path in folder.glob("table.*")}
    for changed in flips(COMMITTED / name, 120):
        (folder / name).write_bytes(changed)
        for command in (stale, render) if name != MANIFEST else (stale,):
            with pytest.raises(UserError) as caught:
                command(folder)
            message = str(caught.value)
            assert message.startswith(str(folder / name))
            assert "\n" not in message and "bench table" not in message
    assert tables == {path.name: path.read_bytes() for path in folder.glob("table.*")}


@pytest.mark.parametrize("name", [SCORES, PROTOCOL, MANIFEST])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, Path.touch])
def test_what_is_no_file_of_results_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(COMMITTED, folder)
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(UserError, match=f"{re.escape(name)}( is damaged)?: "):
        stale(folder)


def test_scores_of_another_result_are_refused(result_folder: ResultFolder) -> None:
    folder = result_folder()
    shutil.copy(COMMITTED / SCORES, folder / SCORES)
    with pytest.raises(UserError, match=r"scores\.parquet is damaged: .* records sha256 \w+, this"):
        render(folder)


def to_schema_2(path: Path) -> None:
    record = json.loads(path.read_text())
    for key in ("sha256", "scores_sha256"):
        record.pop(key, None)
    path.write_text(json.dumps(record | {"schema": 2}))


@pytest.mark.parametrize("name", [SCORES, "table.md"])
def test_a_folder_of_the_schema_before_is_brought_to_this_one_if_its_tables_vouch_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(COMMITTED, folder)
    for record in (PROTOCOL, MANIFEST):
        to_schema_2(folder / record)
    assert run(["table", str(folder), "--check"]) == 1
    assert f"has schema 2, which knows no sha256 of its scores: run 'bench table {folder}'" in (
        capsys.readouterr().err
    )
    whole = (folder / name).read_bytes()
    if name == SCORES:
        table = pq.read_table(folder / name)
        pq.write_table(table.slice(0, len(table) - 1), folder / name)
    else:
        (folder / name).write_bytes(whole.replace(b"0.0325", b"0.0326"))
    assert run(["table", str(folder)]) == 1
    assert "is not what they give: run the 'bench ablate' again" in capsys.readouterr().err
    (folder / name).write_bytes(whole)
    assert run(["table", str(folder)]) == 0
    for path in COMMITTED.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def rewrite(path: Path, **keys: Any) -> None:
    """Change keys as somebody would who knows the format."""
    record = json.loads(path.read_text()) | keys
    said = {key: value for key, value in record.items() if key not in ("schema", "sha256")}
    path.write_text(json.dumps(record | {"sha256": sha256_text(canonical_json(said))}))


def test_unknown_keys_are_refused_by_name(result_folder: ResultFolder, tmp_path: Path) -> None:
    folder = result_folder()
    rewrite(folder / PROTOCOL, footer=["a sentence"])
    with pytest.raises(UserError, match=r"is damaged: run .* \(footer: unknown key"):
        read_results(folder)
    (tmp_path / MANIFEST).write_bytes((COMMITTED / MANIFEST).read_bytes())
    rewrite(tmp_path / MANIFEST, mood="good")
    with pytest.raises(UserError, match=r"is damaged: run .* \(mood: unknown key"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("primary", "beauty", "primary 'beauty' is not among the rewards"),
        (
            "comparisons",
            ({"name": "DPO - base", "on": ("DPO",), "off": ("X",), "question": "?"},),
            "names 'X', which is no arm",
        ),
        ("arms", ({"name": "A/A", "seeds": (None,)},), "two arms have one name"),
        ("prompts.ids", ("a", "b", "a"), "two ids have one name"),
        ("arms", (), "names 'DPO', which is no arm"),
        ("arms", (ARMS[0] | {"seeds": (0, 1)}, *ARMS[1:]), "the first arm is not the base model"),
        ("arms", (ARMS[0], ARMS[1] | {"seeds": (0, 0, 1)}, ARMS[2]), "'DPO' has no seeds, or one"),
        ("arms", (ARMS[0], ARMS[1] | {"seeds": ()}, ARMS[2]), "'DPO' has no seeds, or one"),
        ("arms", (ARMS[0], ARMS[1] | {"seeds": (0, 1)}, ARMS[2]), "different numbers of seeds"),
        (
            "control",
            ({"name": "A/A'", "seeds": (0, 1)}, {"name": "A/A", "seeds": (0, 1, 2)}),
            "different numbers of pairs",
        ),
        ("statistics.alpha", 0.7, r"expected alpha in \(0, 0.5\)"),
        ("statistics.tie", -1.0, "tie >= 0"),
        ("images.per_prompt", 0, "an image of each prompt"),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused(
    make_protocol: MakeProtocol, key: str, value: object, why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        make_protocol({key: value})


def test_mixed_signatures_are_refused(
    result_folder: ResultFolder, make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol())
    scores.loc[scores["reward"].eq("flaws") & scores["arm"].eq("DPO"), "signature"] = "flaws|2"
    with pytest.raises(UserError, match="mixes scores of different signatures for flaws") as caught:
        result_folder(scores=scores)
    assert "\n" not in str(caught.value)


def test_scores_of_another_signature_than_declared_are_refused(
    result_folder: ResultFolder, make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol())
    scores.loc[scores["reward"].eq("flaws"), "signature"] = "flaws|2"
    with pytest.raises(UserError, match=r"holds scores of flaws\|2, but protocol.json declares"):
        result_folder(scores=scores)
