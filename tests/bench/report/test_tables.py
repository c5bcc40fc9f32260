"""Tables are pure functions of the files in a result folder."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli import run
from bench.report.folder import FILES, FORMATS, render, stale
from bench.results.analysis import analyse
from bench.results.files import read_protocol, write_results
from bench.results.protocol import Comparison, Mark, Protocol

MakeProtocol = Callable[..., Protocol]
MakeScores = Callable[..., pd.DataFrame]
ResultFolder = Callable[..., Path]
EFFECTS = {"DPO": 0.25, "DPO+A": 0.375}


def rendered(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def cells(text: str) -> list[list[str]]:
    """Every line of every Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_rendering_again_gives_the_same_bytes(result_folder: ResultFolder) -> None:
    folder = result_folder()
    first = rendered(folder)
    for name in FILES:
        (folder / name).unlink()
    assert stale(folder) == list(FILES)
    render(folder)
    assert rendered(folder) == first
    assert stale(folder) == []


def test_the_order_of_rows_does_not_matter(result_folder: ResultFolder) -> None:
    folder = result_folder()
    first = rendered(folder)
    table = pq.read_table(folder / "scores.parquet")
    order = np.random.default_rng(3).permutation(len(table))
    assert order[0] != 0
    write_results(folder, read_protocol(folder), table.take(pa.array(order)), None)
    render(folder)
    assert rendered(folder) == first


def test_check_passes_on_fresh_results(
    result_folder: ResultFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = result_folder()
    assert run(["table", str(folder), "--check"]) == 0
    assert "every table is what its scores give" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(FILES))
def test_check_names_a_changed_file_and_changes_nothing(
    result_folder: ResultFolder, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = result_folder()
    path = folder / name
    data = bytearray(path.read_bytes())
    place = data.rindex(b"1")
    data[place : place + 1] = b"2"
    path.write_bytes(data)
    assert run(["table", str(folder), "--check"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"bench: {folder}: {name} is not what its scores give: run")
    assert captured.err.count("\n") == 1
    assert path.read_bytes() == data
    assert run(["table", str(folder)]) == 0
    assert run(["table", str(folder), "--check"]) == 0


def test_check_sees_changed_scores(result_folder: ResultFolder) -> None:
    folder = result_folder()
    table = pq.read_table(folder / "scores.parquet")
    scores = table["score"].to_numpy().copy()
    scores[table["arm"].to_pylist().index("DPO")] += 0.01
    place = table.schema.get_field_index("score")
    changed = table.set_column(place, "score", pa.array(scores))
    write_results(folder, read_protocol(folder), changed, None)
    assert stale(folder) == list(FILES)


def test_tables_are_made_without_models(result_folder: ResultFolder) -> None:
    """Whoever reads results needs no library that trains or loads models."""
    script = (
        "import sys\n"
        "from bench.cli import run\n"
        f"code = run(['table', {str(result_folder())!r}, '--check'])\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'bench.experiment', 'bench.stages', "
        "'bench.spec'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_csv_has_a_line_for_every_comparison_and_reward(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol()
    results = analyse(make_scores(protocol, EFFECTS, noise=0.1), protocol)
    found = rows(FORMATS["csv"](results))
    assert [(r["on"], r["off"], r["reward"]) for r in found] == [
        (*c.on, *c.off, reward.name) for c in protocol.comparisons for reward in protocol.rewards
    ]
    for row in found:
        assert None not in row
        assert None not in row.values()
        comparison = next(c for c in results.comparisons if c.comparison.on == (row["on"],))
        contrast = comparison.contrasts[row["reward"]]
        assert contrast is not None
        i = contrast.interval
        for name, value in (
            ("difference", i.mean), ("low", i.low), ("high", i.high), ("se", i.se), ("df", i.df),
            ("p", i.p_value), ("win_rate", contrast.wins.rate), ("wins", contrast.wins.wins),
            ("losses", contrast.wins.losses), ("dz", contrast.dz), ("n_prompts", i.n_prompts),
        ):  # fmt: skip
            assert float(row[name]) == pytest.approx(value, rel=1e-8), name
        primary = row["reward"] == protocol.primary
        assert row["primary"] == str(primary)
        assert row["verdict"] == (comparison.verdict if primary else "")
        assert (row["p_holm"] != "") == primary
        assert (row["bootstrap_low"] != "") == primary


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_json_is_strict_and_complete(
    make_protocol: MakeProtocol, make_scores: MakeScores, noise: float
) -> None:
    protocol = make_protocol()
    scores = make_scores(protocol, EFFECTS, noise)  # Without noise, dz is infinite.
    scores.loc[scores["arm"].eq("DPO+A") & scores["train_seed"].eq(1), "score"] = np.nan
    results = analyse(scores, protocol)
    data: dict[str, Any] = json.loads(FORMATS["json"](results), parse_constant=refuse)
    assert Protocol.model_validate(data["protocol"]) == protocol
    assert [c["name"] for c in data["comparisons"]] == ["DPO - base", "DPO+A - DPO"]
    assert data["missing"] == {"truth": 20, "flaws": 20}
    for shown, comparison in zip(data["comparisons"], results.comparisons, strict=True):
        contrast = comparison.contrasts["truth"]
        assert contrast is not None
        mean = shown["contrasts"]["truth"]["interval"]["mean"]
        assert mean == pytest.approx(contrast.interval.mean, rel=1e-8)
        assert (shown["contrasts"]["truth"]["dz"] is None) == (noise == 0)


def test_markdown_shows_what_was_found(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol()
    text = FORMATS["markdown"](analyse(make_scores(protocol, EFFECTS, noise=0.1), protocol))
    table = cells(text)
    assert len({tuple(line) for line in table if set(line) != {"---"}}) == 3 + 3 + 4
    arms, primary, others = (
        [line for line in table if line[0] in names and len(line) == width]
        for names, width in (
            (("base", "DPO", "DPO+A"), 5),
            (("DPO - base", "DPO+A - DPO"), 7),
            (("DPO - base", "DPO+A - DPO"), 2),
        )
    )
    assert [line[:2] for line in arms] == [["base", "-"], ["DPO", "3"], ["DPO+A", "3"]]
    assert [line[-1] for line in primary] == ["helps", "helps"]
    assert primary[0][2] == "-"
    assert re.fullmatch(r"\+\d+ % \[\+\d+, \+\d+\]", primary[1][2])
    assert len(others) == 2
    assert ["arm", "seeds", "truth*", "flaws", "win rate against base*"] in table
    # Against the base model DPO is the first comparison, so its wins are the same.
    assert [line[-1] for line in arms][:2] == ["-", primary[0][4]]
    assert "difference [95% interval]" in text
    assert "Read as: a test." in text
    assert "moderated over the 2 declared comparisons" in text
    assert "Missing scores: truth 0 of 260, flaws 0 of 260." in text
    assert (
        "- 20 prompts of made-up (test split, sha256 0123456789ab), 1 image(s) each: ddim, "
        "12 steps, guidance 7.5, eta 0, seed 3, float32.\n"
        "- 90 training pairs (10 ties dropped); training seeds 0, 1, 2.\n"
        "- truth: truth|1\n- flaws: flaws|1\n- dpo-bench 1.2.3.\n"
    ) in text
    assert "†" not in text


def test_the_family_size_and_the_level_are_those_of_the_plan(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    more = Comparison(name="DPO+A - base", on=("DPO+A",), off=("base",), question="?")
    family = (*make_protocol().comparisons, more)
    protocol = make_protocol({"comparisons": family, "statistics.alpha": 0.1})
    text = FORMATS["markdown"](analyse(make_scores(protocol, EFFECTS, noise=0.1), protocol))
    assert "moderated over the 3 declared comparisons" in text
    assert "difference [90% interval]" in text


def test_a_missing_arm_is_marked(
    result_folder: ResultFolder, make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    scores = make_scores(make_protocol(), EFFECTS, noise=0.1)
    folder = result_folder(scores=scores[scores["arm"] != "DPO+A"])
    text = (folder / "table.md").read_text()
    table = cells(text)
    assert ["DPO+A", "3", "missing", "missing", "missing"] in table
    blocked = "blocked: too few complete pairs"
    assert ["DPO+A - DPO", "missing", "-", "-", "-", "-", blocked] in table
    assert ["DPO+A - DPO", "missing"] in table
    assert "Missing scores: truth 60 of 260, flaws 60 of 260." in text
    assert "moderated over the 2 declared comparisons" in text
    lost = [r for r in rows((folder / "table.csv").read_text()) if r["on"] == "DPO+A"]
    assert [(r["reward"], r["difference"], r["verdict"]) for r in lost] == [
        ("truth", "", "blocked"),
        ("flaws", "", ""),
    ]
    json.loads((folder / "table.json").read_text(), parse_constant=refuse)
    assert stale(folder) == []


def test_a_result_of_one_training_run_wears_a_dagger(
    result_folder: ResultFolder, make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    protocol = make_protocol()
    one = tuple(arm.model_copy(update={"seeds": arm.seeds[:1]}) for arm in protocol.arms)
    protocol = make_protocol({"arms": one})
    folder = result_folder(protocol, make_scores(protocol, EFFECTS, noise=0.1))
    primary = [line for line in cells((folder / "table.md").read_text()) if len(line) == 7][2:]
    assert [line[-1] for line in primary] == ["conditional", "conditional"]
    assert all(line[1].endswith("†") for line in primary)


def test_the_terminal_shows_the_same_figures(
    result_folder: ResultFolder, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    folder = result_folder()
    assert run(["table", str(folder)]) == 0
    shown = capsys.readouterr().out
    for line in cells((folder / "table.md").read_text()):
        if set(line) != {"---"}:
            assert all(cell in shown for cell in line), line
    assert run(["table", str(folder), "--json"]) == 0
    assert capsys.readouterr().out == (folder / "table.json").read_text()


def test_a_reward_that_is_no_independent_judge_is_marked_wherever_it_stands(
    make_protocol: MakeProtocol, make_scores: MakeScores
) -> None:
    truth, flaws = make_protocol().rewards
    truth = truth.model_copy(update={"marks": (Mark(kind="labelled"),)})
    protocol = make_protocol({"rewards": (truth, flaws)})
    analysed = analyse(make_scores(protocol, EFFECTS, noise=0.1), protocol)
    text, why = (
        FORMATS["markdown"](analysed),
        "the preferences of the training pairs were made from it",
    )
    assert ["arm", "seeds", "truth*°", "flaws", "win rate against base*"] in cells(text)
    assert f"- ° truth: {why}." in text
    marks = {row["reward"]: row["mark"] for row in rows(FORMATS["csv"](analysed))}
    assert marks == {"truth": why, "flaws": ""}
