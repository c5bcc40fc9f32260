"""What a leaderboard shows: every figure of its groups, and published ones apart."""

import csv as reader
import io
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from bench.cli import run
from bench.report import html, latex, markdown, published
from bench.report.board import FIGURES, figures, report
from bench.report.boards import FILES, FORMATS, Board, read_board
from bench.report.cells import Table
from bench.results.board import MOST, find_results, leaderboard

COMMITTED = Path(__file__).parents[3] / "results" / "first-world"
ResultFolder = Callable[..., Path]


@pytest.fixture(scope="module")
def board() -> Board:
    return read_board([COMMITTED], published=True)


def column(table: Table, head: str) -> list[str]:
    place = [cell.text for cell in table.columns].index(head)
    return [row[place].text for row in table.rows]


def test_the_first_table_says_what_each_row_gains(board: Board) -> None:
    """DPO's row by hand: 791 wins and 409 losses of 1200, six seeds, oracle .7553 - .7227."""
    table = board.report.tables[0]
    dpo = next(row for row in table.rows if row[0].text == "DPO")
    texts = [cell.text for cell in dpo]
    assert texts[1] == "first-world"
    assert texts[2].startswith("+0.0325 [+0.02")
    assert texts[3] == "65.9 % (791-0-409)"
    assert texts[6] == "200 x 1 x 6"
    assert texts[7].endswith(" s/step") and " CPU h, " in texts[7]
    assert column(table, "row")[-1] == "base"
    assert column(table, "rank")[-1] == "6-7"


def test_ranks_are_ranges_or_single_places(board: Board) -> None:
    (group,) = board.groups
    for row in group.rows:
        for standing in row.standings.values():
            assert standing.rank is not None
            assert 1 <= standing.rank[0] <= standing.rank[1] <= len(group.rows)
    other = board.report.tables[1]
    assert all("; " in cell.text for row in other.rows for cell in row[2:])


def test_every_figure_is_in_the_csv(board: Board) -> None:
    (group,) = board.groups
    rows = [*reader.DictReader(io.StringIO(FORMATS["csv"](board)))]
    assert [*rows[0]] == list(FIGURES)
    assert len(rows) == len(group.rows) * len(group.rewards)
    found = next(r for r in rows if (r["arm"], r["reward"]) == ("DPO lr x5", "oracle"))
    row = next(row for row in group.rows if row.arm == "DPO lr x5")
    gain = row.standings["oracle"].gain
    assert gain is not None
    assert float(found["gain"]) == pytest.approx(gain.mean, rel=1e-8)
    assert (found["rank_best"], found["rank_worst"]) == ("6", "7")
    assert found["hacking"] == "suspected"
    assert found["hacking_up"].split() == [
        "mini-pickscore", "mini-hpsv2", "mini-imagereward", "mini-aesthetic",
    ]  # fmt: skip
    assert all(r["strength"] == "" for r in rows if r["primary"] == "False")


def test_json_holds_groups_and_published_rows(board: Board) -> None:
    data = json.loads(FORMATS["json"](board))
    assert data["groups"][0]["rows"][0]["arm"] == "DPO beta/5"
    assert data["published"][0]["rows"]["DPO"]["pickscore"] == "21.00"


@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_format_is_the_same_each_time(board: Board, kind: str) -> None:
    assert FORMATS[kind](board) == FORMATS[kind](read_board([COMMITTED], published=True))


def test_published_gains_are_over_the_sources_own_base_row() -> None:
    """All 48 values as they are printed; differences in decimals, so that no digit is made up."""
    found = published.blocks()
    assert sum(len(block.rows) for block in found) == 48
    for block, table in zip(found, published.tables(found), strict=True):
        for (_, row), cells in zip(block.rows.items(), table.rows, strict=True):
            assert all(cell.marks == ("published",) for cell in cells)
            for kind, cell in zip(
                [k for k in published.VALUES if k in row], cells[1:], strict=False
            ):
                printed, _, gain = cell.text.partition(" ")
                assert printed == row[kind]
                if gain:
                    base = Decimal(block.rows["base"][kind].rstrip("*"))
                    assert Decimal(gain.strip("()")) == Decimal(printed.rstrip("*")) - base


def test_a_source_without_a_base_row_has_no_gains() -> None:
    found = [block for block in published.blocks() if "base" not in block.rows]
    assert [block.protocol.source for block in found] == ["Rethinking DPO (AAAI 2026)"]
    (table,) = published.tables(found)
    assert all("(" not in cell.text for row in table.rows for cell in row[1:])


def test_protocols_that_differ_are_flagged_in_words(board: Board) -> None:
    found = published.blocks()
    told = [*published.notes(found, board.groups)][1:]
    assert len(told) == len(found)
    assert all("Differs from group 1 in: base model, prompts" in note for note in told)
    medians = [note for note in told if "SmPO" in note]
    assert len(medians) == 2 and all("aggregate" in note and "medians" in note for note in medians)


def test_a_group_of_the_same_protocol_differs_in_nothing(board: Board) -> None:
    """DRO's table 3, had somebody run it: then there is nothing to flag."""
    (group,) = board.groups
    images = group.images.model_copy(
        update={"per_prompt": 5, "sampler": "ddpm", "steps": 50, "guidance": 7.5}
    )
    hps = group.rewards[0].model_copy(update={"name": "hpsv2.0"})
    same = replace(
        group, base="stable-diffusion-v1-5/stable-diffusion-v1-5", prompts="pickapic-v2-test",
        n_prompts=500, images=images, rewards=(hps,),
    )  # fmt: skip
    first = [*published.notes(published.blocks(), (group, same))][1]
    assert first.endswith("Differs from group 2 in: nothing that is stated.")


def test_a_large_group_has_no_strengths(result_folder: ResultFolder) -> None:
    folder = result_folder()
    groups = leaderboard({f"r{n:02d}": folder for n in range(MOST // 2 + 1)})
    assert len(groups[0].rows) > MOST
    assert all(row.strength is None for row in groups[0].rows)
    assert len(report(groups, ()).tables) == 2
    assert len(figures(groups).rows) == 2 * len(groups[0].rows)


def test_names_of_arms_and_folders_break_out_of_nothing(board: Board) -> None:
    (group,) = board.groups
    evil = "<b>|&\\"
    rows = tuple(replace(row, arm=evil, result=evil) for row in group.rows)
    shown = report((replace(group, rows=rows),), ())
    assert "<b>" not in html.render(shown).replace("&lt;b&gt;", "")
    assert "\\<b>\\|&\\\\" in markdown.render(shown)
    assert "\\textless{}b\\textgreater{}\\textbar{}\\&" in latex.render(shown)


def test_latex_says_which_packages_it_needs(board: Board) -> None:
    assert latex.render(board.report).startswith("% Needs \\usepackage{booktabs,xcolor}.")
    ours = report(board.groups, ())
    assert latex.render(ours).startswith("% Needs \\usepackage{booktabs}.")


def test_the_command_writes_checks_and_prints(
    tmp_path: Path, result_folder: ResultFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = result_folder()
    assert run(["leaderboard", str(tmp_path)]) == 0
    assert "Group 1: " in capsys.readouterr().out
    assert run(["leaderboard", str(tmp_path), "--check"]) == 0
    capsys.readouterr()
    for name, kind in FILES.items():
        assert run(["leaderboard", str(tmp_path), "--format", kind]) == 0
        assert capsys.readouterr().out == (tmp_path / name).read_text()
    (tmp_path / "leaderboard.csv").write_text("")
    assert run(["leaderboard", str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().err == (
        f"bench: {tmp_path}: leaderboard.csv is not what its results give: run 'bench leaderboard "
        f"{tmp_path}'\n"
    )
    before = sorted(folder.iterdir())
    assert run(["leaderboard", str(folder), "--no-published"]) == 0
    assert "Published" not in capsys.readouterr().out
    assert sorted(folder.iterdir()) == before
    assert run(["leaderboard", str(folder), "--check"]) == 1
    assert "give the one folder that these lie in" in capsys.readouterr().err


def test_a_foreign_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["leaderboard", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert find_results([COMMITTED])
