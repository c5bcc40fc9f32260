"""The command line: exit codes, messages, and what it must not load."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from bench import __version__
from bench.cli import run
from bench.cli.options import parse_seeds
from bench.experiment.collect import make_protocol
from bench.experiment.prepare import prepare
from bench.launch.graph import Outcome
from bench.report.notes import footer
from bench.rewards import REWARDS
from bench.spec.model import load_spec, shipped
from trainers.errors import UserError
from trainers.objectives import OBJECTIVES

Capture = pytest.CaptureFixture[str]
WriteSpec = Callable[[Mapping[str, Any]], str]


@pytest.fixture(autouse=True)
def _no_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set, so that what --debug sets is taken back.
    monkeypatch.setenv("DPO_BENCH_DEBUG", "")


def refused(capsys: Capture, *arguments: str) -> str:
    """The one line on stderr of a command line that is refused with exit code 1."""
    assert run(list(arguments)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bench: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nonsense"], "nonsense"),
        (["ablate", "--foo"], "--foo"),
        (["ablate", "mini", "more"], "more"),
        (["ablate", "--workers", "0"], "--workers"),
        (["ablate", "--workers", "two"], "--workers"),
        (["ablate", "--seeds", "x"], "--seeds: expected e.g. 0-4 or 0,2,5, got 'x'"),
        (["ablate", "--seeds", "4-0"], "seeds: "),
        (["ablate", "mimi"], "no spec 'mimi': did you mean 'mini'?"),
        (["table"], "folder"),
        (["table", "/nonexistent"], "/nonexistent holds no protocol.json"),
        (["list", "rewardz"], "nothing is listed as 'rewardz': expected one of specs, rewards"),
        (["train", "DPO+Z", "--out", "/nonexistent/out"], "has no arm 'DPO+Z': expected one of"),
        (["generate", "--prompts", "nope", "--out", "/nonexistent/out"], "no prompt set 'nope'"),
        (["generate", "--out", "/nonexistent/out"], "prompts"),
        (
            ["score", "/nonexistent", "--rewards", "oracle"],
            "no folder or parquet file /nonexistent",
        ),
        (["score", "/tmp", "--rewards", "oracel"], "unknown reward 'oracel': did you mean"),
        (["score", "/tmp", "--dtype", "int8"], "dtype: Input should be 'float32', 'bfloat16'"),
        (["score", "/tmp", "--weights", "x"], "--weights: expected NAME=FOLDER or NAME=OWNER"),
        (["mini", "nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    capsys: Capture, arguments: list[str], expected: str
) -> None:
    assert expected in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rewards": ["oracle", "oracel"]}, "unknown reward 'oracel': did you mean 'oracle'?"),
        ({"objectives": {"dop": {"objective": {"name": "dop"}}}}, "did you mean 'dpo'?"),
        ({"base": "mini-ds"}, "no model 'mini-ds': give the path of a diffusers folder, or mini-"),
        (
            {"data": "nope"},
            "no preference pairs at nope: give a parquet file, a folder or a pattern",
        ),
        ({"prompts": "nope"}, "no prompt set 'nope'"),
        ({"prompt_limit": 9999}, "9999 were asked for"),
        ({"backbone": "stable-difusion"}, "did you mean 'stable-diffusion'?"),
        ({"primary": "clip"}, "primary 'clip' is not among the rewards"),
    ],
)
def test_a_wrong_spec_is_refused_before_anything_runs(
    capsys: Capture,
    tiny: dict[str, Any],
    write_spec: WriteSpec,
    tmp_path: Path,
    changes: dict[str, Any],
    expected: str,
) -> None:
    out = tmp_path / "out"
    line = refused(capsys, "ablate", write_spec({**tiny, **changes}), "--out", str(out))
    assert expected in line
    assert not out.exists()


def test_help_is_exit_code_0(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    assert "ablate" in capsys.readouterr().out
    assert run(["ablate", "--help"]) == 0
    assert "--workers" in capsys.readouterr().out


def test_no_arguments_print_the_help_and_nothing_else(capsys: Capture) -> None:
    assert run([]) == 1
    captured = capsys.readouterr()
    assert "Usage" in captured.out
    assert captured.err == ""


def test_debug_shows_the_traceback(capsys: Capture) -> None:
    with pytest.raises(UserError, match="no spec 'nope'"):
        run(["--debug", "ablate", "nope"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_an_interruption_is_exit_code_130(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupt(*_: object) -> None:
        raise error

    monkeypatch.setattr("bench.cli.catalogue.catalogue", interrupt)
    assert run(["list"]) == 130
    captured = capsys.readouterr()
    assert captured.err == "bench: interrupted; the same command goes on from here\n"


def test_failed_runs_are_exit_code_2_and_named(
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    tiny: dict[str, Any],
    write_spec: WriteSpec,
    result_folder: Callable[..., Path],
) -> None:
    folder = result_folder()
    outcome = Outcome(failed={"x": "training DPO seed 0: ValueError: no luck"})
    monkeypatch.setattr("bench.experiment.run.ablate", lambda *_: (folder, outcome))
    assert run(["ablate", write_spec(tiny), "--json"]) == 2
    captured = capsys.readouterr()
    assert "failed: training DPO seed 0: ValueError: no luck" in captured.err
    assert json.loads(captured.out)["protocol"]["title"] == "Made-up scores"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["ablate", "--help"], ["figures", "--help"], ["nonsense"]]
)
def test_torch_is_not_loaded_for_help(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from bench.cli import run\n"
        f"code = run({arguments!r})\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'pandas', 'scipy', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == (1 if arguments == ["nonsense"] else 0), done.stderr
    assert "loaded" not in done.stderr


def test_the_installed_command_shows_one_line_or_the_traceback() -> None:
    command = str(Path(sys.executable).with_name("bench"))
    done = subprocess.run([command, "ablate", "nope"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bench: no spec 'nope'")
    assert done.stderr.count("\n") == 1
    done = subprocess.run([command, "--debug", "ablate", "nope"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "UserError: no spec 'nope'" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("3", (3,)),
        ("0-4", (0, 1, 2, 3, 4)),
        ("0,2,5", (0, 2, 5)),
        ("7,0-2", (7, 0, 1, 2)),
    ],
)
def test_seeds_are_parsed(text: str | None, expected: tuple[int, ...] | None) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1,", "-1", "1.5", "0-x", "0:4"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--seeds: expected e\.g\. 0-4 or 0,2,5, got "):
        parse_seeds(text)


def test_list_json_parses(capsys: Capture) -> None:
    assert run(["list", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)

    def names(kind: str) -> list[str]:
        return [row["name"] for row in data[kind]]

    assert names("specs") == list(shipped())
    assert names("rewards") == REWARDS.names()
    assert names("objectives") == OBJECTIVES.names()
    assert all(data.values())
    for kind in data:
        assert run(["list", kind, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {kind: data[kind]}


def test_list_prints_every_name(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["list"]) == 0
    shown = capsys.readouterr().out
    for name in (
        *REWARDS.names(), *OBJECTIVES.names(), *shipped(), "mini-dev", "partiprompts", "hard-copy"
    ):  # fmt: skip
        assert name in shown


def test_plan_runs_nothing_and_lists_every_stage(
    capsys: Capture, tiny: dict[str, Any], write_spec: WriteSpec, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["ablate", write_spec(tiny), "--plan", "--out", str(out), "--workers", "2"]
    assert run([*command, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert not out.exists()
    assert (data["name"], data["workers"]) == ("tiny", 2)
    assert {stage["state"] for stage in data["stages"]} == {"missing"}
    kinds = [stage["kind"] for stage in data["stages"]]
    counts = {kind: kinds.count(kind) for kind in ("encode", "train", "images", "scores")}
    assert counts == {"encode": 1, "train": 8, "images": 15, "scores": 15}
    assert len({stage["id"] for stage in data["stages"]}) == len(kinds) == 39
    # 8 x 16 pairs, 90 images and scores, on two workers, and the start.
    assert data["estimated_seconds"] > (8 * 16 * 0.012 + 90 * 0.064) / 2 + 8
    assert run(command) == 0
    assert "39 stages, 0 cached, 39 to run" in " ".join(capsys.readouterr().out.split())
    assert not out.exists()


def test_a_plan_counts_what_runs_have_computed_for_them(
    capsys: Capture, tiny: dict[str, Any], write_spec: WriteSpec, tmp_path: Path
) -> None:
    """A stage of each seed makes two of the eight passes for two runs: one run is spared them."""
    control = {"of": "DPO", "set": {"objective.beta": 50}}
    cost = tiny["cost"] | {"pair": 100}
    spec = write_spec(tiny | {"components": {}, "controls": {"weak": control}, "cost": cost})
    command = ["ablate", spec, "--plan", "--out", str(tmp_path / "out"), "--workers", "1"]
    assert run([*command, "--json"]) == 0
    on = json.loads(capsys.readouterr().out)
    assert run([*command, "--json", "--set", "training.share_reference=false"]) == 0
    off = json.loads(capsys.readouterr().out)
    assert [s for s in on["stages"] if s["kind"] != "reference"] == off["stages"]
    assert [(s["label"], s["units"], s["state"]) for s in on["stages"][len(off["stages"]) :]] == [
        (f"reference errors of seed {seed}", 16, "missing") for seed in (0, 1)
    ]
    saved = off["estimated_seconds"] - on["estimated_seconds"]
    assert saved == pytest.approx(2 * 16 * 100 / 4)
    assert run(command) == 0
    count = len(on["stages"])
    assert f"{count} stages, 0 cached, {count} to run" in " ".join(capsys.readouterr().out.split())


def test_repeated_prompts_are_told(
    capsys: Capture, tiny: dict[str, Any], write_spec: WriteSpec, tmp_path: Path
) -> None:
    """In the plan, and under the tables: they are fewer observations than the file has rows."""
    prompts = tmp_path / "set.json"
    prompts.write_text('["a", "b", "a", "c"]')
    spec = write_spec(tiny | {"prompts": str(prompts), "prompt_limit": 3})
    command = ["ablate", spec, "--plan", "--out", str(tmp_path / "out")]
    assert run(command) == 0
    assert "3 prompts; 1 repeated ones left out" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repeated_prompts"] == 1
    told = next(footer(make_protocol(prepare(load_spec(spec)))))
    assert told.startswith("3 prompts of set (unstated split, sha256 ")
    assert ", 1 repeated left out), 1 image(s) each" in told


def test_doctor_json_parses_and_decides_the_exit_code(capsys: Capture) -> None:
    code = run(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert {"torch", "diffusers", "shipped files"} <= {f["what"] for f in findings}
    assert code == (0 if all(f["good"] for f in findings) else 1)
    assert all(f["good"] or f["mend"] for f in findings)


def test_doctor_says_what_is_wrong(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.cli.doctor.differing", lambda _: ["sd/unet/config.json"])
    assert run(["doctor", "--json"]) == 1
    bad = [f for f in json.loads(capsys.readouterr().out) if not f["good"]]
    assert bad[-1]["found"] == "sd/unet/config.json changed"
    assert bad[-1]["mend"] == "install the package again"


def test_an_arm_is_encoded_and_trained_where_the_command_line_says(
    capsys: Capture, tmp_path: Path
) -> None:
    """The first key that is refused is that of the encoding: the option moves both."""
    said = refused(capsys, "train", "DPO", "--out", str(tmp_path), "--device", "cuda:99")
    assert "encoding.device: 'cuda:99' cannot be used here" in said
    said = refused(capsys, "train", "DPO", "--out", str(tmp_path), "--num-processes", "7")
    assert "cannot be shared by 7 processes" in said


def test_set_replaces_keys_of_the_spec(capsys: pytest.CaptureFixture[str]) -> None:
    """After --quick and before --seeds; values are YAML."""
    changes = ["--set", "train.steps=3", "--set", "prompt_limit=5"]
    assert run(["ablate", "mini", "--quick", *changes, "--seeds", "7", "--plan", "--json"]) == 0
    told = capsys.readouterr()
    assert "--quick takes train.steps: 8," in told.err, "what it replaces is said, but for --seeds"
    stages = json.loads(told.out)["stages"]
    trained = {s["label"]: s["units"] for s in stages if s["kind"] == "train"}
    arms = ("DPO", "DPO+A", "DPO+B", "DPO+A+B", "DPO at its best")
    assert trained == {f"training {arm} seed 7": 3 for arm in arms}
    assert {s["units"] for s in stages if s["kind"] == "images"} == {5}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.steps", "--set: expected KEY=YAML such as train.steps=10, got 'train.steps'"),
        ("=3", "--set: expected KEY=YAML such as train.steps=10, got '=3'"),
        ("train.steps={", "--set train.steps: expected YAML, got '{'"),
        ("trian.steps=3", "mini: trian: unknown key"),
    ],
)
def test_a_change_that_is_none(change: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ablate", "mini", "--set", change, "--plan"]) == 1
    assert told in capsys.readouterr().err


def test_the_version_and_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"dpo-bench {__version__}\n"
    assert run(["ablate", "-h"]) == 0
    assert "--set" in capsys.readouterr().out
