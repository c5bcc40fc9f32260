"""What is committed is what it says it is."""

from pathlib import Path

import pytest

from bench.assets import differing, mini_folder, shipped_models
from bench.estimate.plan import budget
from bench.experiment.prepare import prepare
from bench.report import boards
from bench.report.figures import folder as figures
from bench.report.figures.source import read_source
from bench.report.folder import stale
from bench.results.files import PROTOCOL, read_manifest, read_protocol
from bench.rewards import REWARDS
from bench.spec.matrix import build_matrix
from bench.spec.model import load_spec, shipped

ROOT = Path(__file__).parents[2]
RESULTS = sorted(path.parent for path in (ROOT / "results").rglob(PROTOCOL))
SPECS = [*shipped(), *(str(p) for p in sorted((ROOT / "docs").rglob("*.yaml")))]


def test_there_are_committed_results() -> None:
    assert RESULTS


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_every_committed_table_is_what_its_scores_give(folder: Path) -> None:
    assert stale(folder) == []


def test_the_committed_leaderboard_is_what_the_results_give() -> None:
    folder = ROOT / "results"
    assert boards.stale(boards.read_board([folder], published=True), folder) == []


def test_the_figures_of_the_documents_are_what_the_evidence_gives() -> None:
    """Those of ``bench figures results/mini-table-4 --out docs/figures``, byte for byte."""
    drawn = figures.render([read_source(ROOT / "results/mini-table-4")])
    assert {figure.name for figure in drawn.figures} > {"intervals", "agreement"}
    assert figures.stale(ROOT / "docs/figures", drawn) == []


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_every_committed_manifest_is_that_of_its_protocol(folder: Path) -> None:
    manifest, protocol = read_manifest(folder), read_protocol(folder)
    assert manifest.bench == protocol.bench
    assert manifest.inputs.prompts.sha256 == protocol.prompts.sha256
    assert manifest.inputs.prompts.n == len(protocol.prompts.ids)
    assert manifest.inputs.prompts.repeated == protocol.prompts.repeated
    assert (manifest.inputs.pairs.kept, manifest.inputs.pairs.ties) == (
        protocol.pairs.kept, protocol.pairs.ties,
    )  # fmt: skip
    assert {(run.arm, run.seed) for run in manifest.runs} == {
        (arm.name, seed) for arm in protocol.arms[1:] for seed in arm.seeds
    }
    signatures = {name: card["signature"] for name, card in manifest.rewards.items()}
    assert signatures == {reward.name: reward.signature for reward in protocol.rewards}


def test_shipped_weights_are_the_recorded_ones_and_small() -> None:
    assert differing(mini_folder()) == []
    files = [path for path in mini_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".parquet", ""}


def of_a_shipped_model(source: str) -> bool:
    """Whether a spec needs no files of the user's. Its base alone decides, never its name."""
    return load_spec(source).base in shipped_models()


@pytest.mark.parametrize("source", [s for s in SPECS if of_a_shipped_model(s)])
def test_every_spec_of_a_shipped_model_can_be_prepared(source: str) -> None:
    experiment = prepare(load_spec(source))
    assert len(experiment.matrix.arms) >= 2
    if experiment.spec.quick:
        assert len(prepare(load_spec(source, quick=True)).prompts.items) > 0


@pytest.mark.parametrize("source", [s for s in SPECS if not of_a_shipped_model(s)])
def test_every_other_spec_is_valid_and_can_be_planned(source: str) -> None:
    """All that needs no files: the settings of every arm, the rewards, prompts, and the plan."""
    for quick in (False, True):
        spec = load_spec(source, quick)
        arms = {arm.name for arm in build_matrix(spec, "0" * 64, "1" * 64).arms}
        assert len(arms) >= 2
        assert set(spec.rewards) <= set(REWARDS.names())
        plan = budget(spec)
        assert set(plan["training_gib"]) == arms
        assert plan["images"] > 0
        assert all(time["hours"] > 0 for time in plan["time"])
        assert plan["time"] or {f"training {arm}" for arm in arms} <= set(plan["not_known"])
        assert plan["guesses"] == []


@pytest.mark.parametrize("source", [s for s in SPECS if not of_a_shipped_model(s)])
def test_the_documented_plan_is_the_one_that_is_printed(source: str) -> None:
    plan = budget(load_spec(source))
    training = [parts["total"] for parts in plan["training_gib"].values()]
    hours = [f"{time['hours']:,.0f} ({time['device']})" for time in plan["time"]]
    cells = [
        f"`{plan['name']}`",
        f"{plan['parameters']['network'] / 1e6:,.1f} M",
        f"{min(training):.1f} to {max(training):.1f}",
        *(f"{plan[key]:.1f}" for key in ("encoding_gib", "generation_gib")),
        f"{plan['scoring_gib']['all']:.1f}",
        f"{plan['encodings']['latents_gib']:.1f}",
        *(f"{plan[key]:,}" for key in ("runs", "optimiser_steps", "images")),
        ", ".join(hours) or "not known",
    ]
    assert f"| {' | '.join(cells)} |" in (ROOT / "docs" / "recipes.md").read_text().splitlines()
