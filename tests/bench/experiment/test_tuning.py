"""What the trials choose, and the whole of it by the command line."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.cli import run
from bench.experiment.tuning import choose
from bench.results.files import read_manifest, read_protocol, read_scores
from bench.results.protocol import Protocol
from bench.spec.model import parse_spec
from bench.spec.tuning import trials
from trainers.errors import UserError

Scores = Callable[..., pd.DataFrame]


@pytest.fixture
def tuned(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["objectives"] = {"DPO": {}}
    del tiny["components"]["B"]
    tiny["tuning"] = {
        "prompts": "mini-test", "prompt_limit": 3, "seeds": [7, 8],
        "space": {"optimizer.lr": [1.0e-4, 1.0e-3]},
    }  # fmt: skip
    return tiny


@pytest.fixture
def tried(
    tuned: dict[str, Any],
    make_protocol: Callable[..., Protocol],
    make_scores: Scores,
    result_folder: Callable[..., Path],
) -> Callable[..., Path]:
    """Results of the trials with made-up mean scores, in the order of the trials."""

    def make(*means: float, direction: str = "higher", without: str = "") -> Path:
        names = [trial.name for trial in trials(parse_spec(tuned, "here"))]
        arms = [{"name": "base", "seeds": (None,)},
                *({"name": name, "seeds": (7, 8)} for name in ("DPO", *names))]  # fmt: skip
        protocol = make_protocol({
            "arms": arms, "comparisons": (), "statistics.gain": None, "statistics.share": None,
            "rewards": ({"name": "oracle", "direction": direction, "signature": "oracle|1"},),
            "primary": "oracle",
        })  # fmt: skip
        scores = make_scores(protocol, dict(zip(names, means, strict=True)))
        lost = (scores["arm"] == without) & (scores["prompt_id"] == protocol.prompts.ids[0])
        return result_folder(protocol, scores[~lost])

    return make


def chosen(tuned: dict[str, Any], folder: Path) -> dict[str, float]:
    made = choose(parse_spec(tuned, "here"), folder)
    return {arm: settings["optimizer.lr"] for arm, settings in made.chosen().items()}


def test_the_best_of_each_arm_is_chosen(tuned: dict[str, Any], tried: Callable[..., Path]) -> None:
    assert chosen(tuned, tried(0.25, 0.5, 0.75, 0.5)) == {"DPO": 1e-3, "DPO+A": 1e-4}


def test_the_lowest_where_lower_is_better(
    tuned: dict[str, Any], tried: Callable[..., Path]
) -> None:
    folder = tried(0.25, 0.5, 0.75, 0.5, direction="lower")
    assert chosen(tuned, folder) == {"DPO": 1e-4, "DPO+A": 1e-3}


def test_the_first_of_equally_good_ones(tuned: dict[str, Any], tried: Callable[..., Path]) -> None:
    assert chosen(tuned, tried(0.5, 0.5, 0.5, 0.5)) == {"DPO": 1e-4, "DPO+A": 1e-4}


def test_a_trial_that_lacks_a_score_is_not_chosen(
    tuned: dict[str, Any], tried: Callable[..., Path]
) -> None:
    folder = tried(0.25, 0.5, 0.75, 0.5, without="DPO with optimizer.lr 0.001")
    assert chosen(tuned, folder) == {"DPO": 1e-4, "DPO+A": 1e-4}
    made = choose(parse_spec(tuned, "here"), folder)
    assert [trial.score is None for trial in made.trials] == [False, True, False, False]


def test_an_arm_without_any_whole_trial_stops_it(
    tuned: dict[str, Any], tried: Callable[..., Path]
) -> None:
    tuned["tuning"]["space"] = {"optimizer.lr": [1.0e-4]}
    with pytest.raises(UserError, match=r"no trial of 'DPO\+A' has all its scores"):
        chosen(tuned, tried(0.5, 0.5, without="DPO+A with optimizer.lr 0.0001"))


def test_tuning_and_experiment_by_one_command(
    tuned: dict[str, Any], write_spec: Callable[[Mapping[str, Any]], str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tuned["seeds"] = [0]
    tuned["tuning"]["seeds"] = [7]
    spec, out = write_spec(tuned), tmp_path / "runs"
    command = ["ablate", spec, "--out", str(out), "--workers", "1"]
    assert run([*command, "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["name"] == "tiny"
    assert plan["trials"]["name"] == "tiny-tuning"
    assert run(command) == 0
    protocol = read_protocol(out / "tiny")
    assert protocol.tuning is not None
    assert [trial.arm for trial in protocol.tuning.trials] == ["DPO", "DPO", "DPO+A", "DPO+A"]
    assert [arm.name for arm in protocol.arms] == [
        "base", "DPO", "DPO+A", "DPO tuned", "DPO+A tuned",
    ]  # fmt: skip
    means = read_scores(out / "tiny-tuning")[0].groupby("arm")["score"].mean()
    for trial in protocol.tuning.trials:
        name = f"{trial.arm} with optimizer.lr {trial.settings['optimizer.lr']}"
        assert trial.score == pytest.approx(means[name], abs=1e-12)
        own = [t.score or 0.0 for t in protocol.tuning.trials if t.arm == trial.arm]
        assert trial.chosen == (trial.score == max(own))
    rates = {run.arm: run.config["optimizer"]["lr"] for run in read_manifest(out / "tiny").runs}
    best = protocol.tuning.chosen()
    assert rates["DPO tuned"] == best["DPO"]["optimizer.lr"]
    table = (out / "tiny" / "table.md").read_text()
    assert "Trials, by oracle on 3 prompts of mini-test, training seeds 7" in table
    assert "each at its best" in (out / "tiny" / "table.json").read_text()
    capsys.readouterr()
    assert run(command) == 0
    assert "done in" not in capsys.readouterr().err
    assert run([*command, "--plan"]) == 0
    assert " 0 to run" in capsys.readouterr().out
