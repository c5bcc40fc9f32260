"""Figures show what the data say, each or a reason why not, in bytes that repeat."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from bench.cli import run
from bench.experiment.collect import make_manifest, make_protocol
from bench.experiment.logs import collect_scales, collect_steps
from bench.experiment.prepare import Experiment
from bench.report.figures import FIGURES
from bench.report.figures.base import Drawn
from bench.report.figures.curves import curve
from bench.report.figures.folder import INDEX, Gallery, render, stale, write
from bench.report.figures.intervals import MARKS
from bench.report.figures.source import Source, alike, flat, read_source, told, without
from bench.report.figures.style import looks, named, styled
from bench.results.files import SCALES, STEPS, write_results
from bench.results.protocol import Protocol
from bench.stages.store import Store
from bench.stats import VerdictWord
from trainers.errors import UserError

Finish = Callable[..., tuple[Experiment, Store, pa.Table]]


def hard(tau: int, delta: float | None) -> dict[str, Any]:
    return {"reference": {"name": "hard-copy", "tau": tau, "delta": delta}}


SCALE = {"timesteps.scale": {"name": "inverse-sqrt-snr"}}
CHANGES = {
    "rewards": ["oracle", "mini-clip"],
    "components": {"A": {"label": "a", "set": hard(2, 0.005)}},
    "controls": {
        name: {"of": "DPO", "set": change}
        for name, change in {
            "tau 1": hard(1, 0.005),
            "open 1": hard(1, None),
            "open 2": hard(2, None),
            "open 2, lambda": hard(2, None) | SCALE,
            "beta": {"objective.beta": 50},
            "beta+A": {"objective.beta": 50, **hard(2, 0.005)},
        }.items()
    },
}
"""So that there is something to see in every figure."""


@pytest.fixture(scope="module")
def folder(finish: Finish, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("figures")
    experiment, store, scores = finish(root, CHANGES)
    steps = collect_steps(experiment, store, None)
    assert steps is not None
    more = {STEPS: steps, SCALES: collect_scales(experiment)}
    manifest = make_manifest(experiment, store)
    write_results(root / "result", make_protocol(experiment), scores, manifest, more)
    return root / "result"


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return read_source(folder)


@pytest.fixture(scope="module")
def gallery(source: Source) -> Gallery:
    return render([source])


def drawn(name: str, *sources: Source) -> Drawn:
    kind = next(kind for kind in FIGURES if kind.name == name)
    with styled():
        return kind.draw(sources)


def lines(figure: Figure, panel: int = 0) -> dict[str, tuple[Any, Any]]:
    """Points by label, of what a panel shows with one."""
    axes = figure.axes[panel]
    handles, labels = axes.get_legend_handles_labels()
    plain = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    return {label: line.get_data() for label, line in zip(labels, plain, strict=True)}


def test_every_figure_is_drawn_with_its_caption(gallery: Gallery, source: Source) -> None:
    assert [figure.name for figure in gallery.figures] == [kind.name for kind in FIGURES]
    assert not gallery.skipped
    for figure in gallery.figures:
        for part in ("6 prompts", "2 training seed(s)", "Read as: a test."):
            assert part in figure.caption
        ElementTree.fromstring(figure.svg)
        assert figure.png.startswith(b"\x89PNG")


def test_what_the_data_do_not_hold_is_said_in_one_line(
    result_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = result_folder()
    assert run(["figures", str(folder)]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"{folder / 'figures'}: intervals, prompts, agreement"
    kinds = ["training", "divergence", "deciles", "divergence-deciles", "tau", "sensitivity",
             "gain-map"]  # fmt: skip
    assert [line.split(": ")[:2] for line in others] == [["not drawn", kind] for kind in kinds]
    index = json.loads((folder / "figures" / INDEX).read_text())
    assert [f["name"] for f in index["figures"]] == ["intervals", "prompts", "agreement"]
    assert [f["name"] for f in index["skipped"]] == kinds


def test_bytes_repeat_elsewhere_and_under_settings_of_a_user(
    folder: Path, gallery: Gallery, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_text("font.family: serif\nsavefig.dpi: 33\nsvg.hashsalt: x\n")
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path), "TZ": "Asia/Tokyo"}
    script = f"from bench.cli import run; run(['figures', {str(folder)!r}, '--out', 'out'])"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path,
                   env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    for figure in gallery.figures:
        assert (tmp_path / "out" / f"{figure.name}.svg").read_bytes() == figure.svg
        assert (tmp_path / "out" / f"{figure.name}.png").read_bytes() == figure.png
    assert stale(tmp_path / "out", gallery) == []


def test_check_finds_a_changed_byte(
    folder: Path, gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    write(out, gallery)
    for name in ("tau.svg", "tau.png", INDEX):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[:-1] + b"?")
        assert stale(out, gallery) == [name]
        (out / name).write_bytes(data)
    (out / "tau.svg").unlink()
    assert run(["figures", str(folder), "--out", str(out), "--check"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"bench: {out}: tau.svg is not what the results give: run 'bench fig")
    assert said.count("\n") == 1


def test_on_another_version_of_matplotlib_only_drawings_are_compared(
    gallery: Gallery, tmp_path: Path
) -> None:
    write(tmp_path, gallery)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"matplotlib": "1.0"}))
    (tmp_path / "tau.png").write_bytes(b"")
    assert stale(tmp_path, gallery) == []
    (tmp_path / "tau.svg").write_bytes(b"")
    assert stale(tmp_path, gallery) == ["tau.svg"]


def test_a_figure_that_is_not_drawn_any_more_goes(gallery: Gallery, tmp_path: Path) -> None:
    write(tmp_path, gallery)
    (tmp_path / "mine.svg").write_text("kept")
    rest = Gallery(gallery.figures[1:], {gallery.figures[0].name: "gone"})
    write(tmp_path, rest)
    names = {path.name for path in tmp_path.iterdir()}
    assert "mine.svg" in names and "prompts.svg" in names
    assert not {"intervals.svg", "intervals.png"} & names


def test_several_folders_are_drawn_apart_and_as_one_map(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert run(["figures", str(folder), str(other), "--out", str(tmp_path / "out")]) == 0
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert [f["name"] for f in index["figures"]] == ["gain-map"]
    assert "Of the folders result, other." in index["figures"][0]["caption"]
    assert (tmp_path / "out/result/tau.svg").exists() and (tmp_path / "out/other/tau.svg").exists()
    assert run(["figures", str(folder), str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "two folders have one name" in capsys.readouterr().err


def test_names_are_shown_whatever_they_are(
    make_protocol: Callable[..., Protocol], make_scores: Callable[..., pd.DataFrame],
    result_folder: Callable[..., Path],
) -> None:  # fmt: skip
    hostile = ["$x^$ -- <b>", "_private", "a\x00b\x1b[0m", "统一" * 40, "\\frac{1}{", "--> ]]>"]
    arms = [{"name": "base", "seeds": (None,)}]
    arms += [{"name": name, "seeds": (0, 1, 2)} for name in hostile]
    comparisons = [
        {"name": f"{name} - base", "on": (name,), "off": ("base",), "question": "?"}
        for name in hostile
    ]
    gain = comparisons[0]["name"]
    protocol = make_protocol(
        {"arms": arms, "comparisons": comparisons, "statistics.gain": gain, "label": "<i>&\x01"}
    )
    folder = result_folder(protocol, make_scores(protocol, {}, noise=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = render([read_source(folder)])
    assert [figure.name for figure in found.figures] == ["intervals", "prompts", "agreement"]
    for figure in found.figures:
        ElementTree.fromstring(figure.svg)


def test_an_interval_is_drawn_where_the_analysis_has_it(source: Source) -> None:
    figure = drawn("intervals", source).figure
    places = [line.get_data() for line in figure.axes[0].lines]
    for place, finding in enumerate(source.results.comparisons):
        contrast = finding.contrasts["oracle"]
        assert contrast is not None
        (ends, rows), (mean, _) = places[2 * place], places[2 * place + 1]
        assert [*ends] == [contrast.interval.low, contrast.interval.high]
        assert [*rows] == [place, place] and [*mean] == [contrast.interval.mean]


def test_every_verdict_has_a_mark_of_its_own() -> None:
    assert {*MARKS} == {*get_args(VerdictWord)}
    assert len({marker for marker, _ in MARKS.values()}) == len(MARKS)


def test_scores_against_tau_are_held_against_the_frozen_reference(source: Source) -> None:
    found = lines(drawn("tau", source).figure)
    assert {*found} == {"with the gate", "without the gate"}
    arms = {"with the gate": ["tau 1", "DPO+A"], "without the gate": ["open 1", "open 2"]}
    for label, (_, means) in found.items():
        expected = [source.differences(arm, "DPO").mean() for arm in arms[label]]
        assert [*means] == pytest.approx(expected)


def test_divergence_by_tenths_is_relative_to_updates_alone(source: Source) -> None:
    """The made-up references are 1 / tau apart, half of it with a gate, 1.5 times with lambda."""
    figure, caption = drawn("divergence-deciles", source)
    found = {label: points[1] for label, points in lines(figure).items()}
    expected = {"open 2, lambda": 150, "DPO+A": 50, "tau 1": 100, "open 1": 200, "open 2": 100}
    assert {*found} == {*expected}
    for label, percent in expected.items():
        assert [*found[label]] == pytest.approx([percent] * len(found[label]))
    assert "percent of that of open 2," in caption


def test_divergence_is_that_of_the_reference_that_is_held(source: Source) -> None:
    """The made-up one is a hundredth of the step at each second step, from the start 0."""
    found = lines(drawn("divergence", source).figure)
    steps, held = found["DPO+A"]
    assert [*steps] == [1, 2, 3, 4]
    assert [*held] == [0, 0.02, 0.02, 0.04]


def test_a_refused_update_leaves_the_divergence_where_it_was(source: Source) -> None:
    assert source.steps is not None
    changed = source.steps.copy()
    last = changed["arm"].eq("DPO+A") & changed["step"].eq(4)
    changed.loc[last, "reference_event"] = "freeze"
    found = lines(drawn("divergence", with_steps(source, changed)).figure)
    assert [*found["DPO+A"][1]] == [0, 0.02, 0.02, 0.02]
    changed.loc[last, "reference_event"] = "reinit"
    found = lines(drawn("divergence", with_steps(source, changed)).figure)
    assert [*found["DPO+A"][1]] == [0, 0.02, 0.02, 0]


def with_steps(source: Source, steps: pd.DataFrame) -> Source:
    fields = {name: getattr(source, name) for name in source.__dataclass_fields__}
    return Source(**fields | {"steps": steps})


def test_the_map_has_a_cell_for_each_beta_with_and_without_an_updated_reference(
    source: Source,
) -> None:
    figure, _ = drawn("gain-map", source)
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    for row, (on, off) in enumerate((("beta+A", "beta"), ("DPO+A", "DPO"))):
        interval = source.interval(on, off)
        assert interval is not None
        assert texts[0.5, row + 0.5].startswith(f"{interval.mean:+.4f}\n[{interval.low:+.4f},")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["50", "5000"]


def test_one_training_seed_is_said_to_be_one_run(
    make_protocol: Callable[..., Protocol], result_folder: Callable[..., Path]
) -> None:
    arms = [{"name": "base", "seeds": (None,)}, {"name": "DPO", "seeds": (4,)}]
    comparison = {"name": "DPO - base", "on": ("DPO",), "off": ("base",), "question": "?"}
    folder = result_folder(make_protocol({"arms": arms, "comparisons": [comparison]}))
    caption = drawn("intervals", read_source(folder)).caption
    assert "1 training seed(s); intervals are conditional on that one run." in caption


def test_agreement_counts_pairs_whose_signs_are_alike(source: Source) -> None:
    title = drawn("agreement", source).figure.axes[0].get_title(loc="left")
    x, y = (
        np.concatenate([(source.scores[r][a] - source.scores[r]["base"]).ravel()
                        for a in source.arms()])
        for r in ("oracle", "mini-clip")
    )  # fmt: skip
    assert f"agrees in {100 * np.mean(np.sign(x) == np.sign(y)):.0f} %" in title


def test_a_curve_is_a_mean_over_seeds_with_the_range_around_it() -> None:
    rows = pd.DataFrame({"seed": [0] * 4 + [1] * 4, "step": [1, 2, 3, 4] * 2})
    values = pd.Series([1.0, 3.0, np.nan, 8.0, 3.0, 5.0, np.nan, 2.0])
    found = curve(rows, values, bins=2)
    assert found is not None
    assert [*found.steps] == [1.5, 4.0]
    assert [*found.mean] == [3.0, 5.0]
    assert ([*found.low], [*found.high]) == ([2.0, 2.0], [4.0, 8.0])
    assert curve(rows, pd.Series([np.nan] * 8)) is None


def test_arms_are_grouped_by_what_else_they_are() -> None:
    arms = {"a": {"x": 1, "r.name": "p", "r.t": 1}, "b": {"x": 1, "r.name": "p", "r.t": 2},
            "c": {"x": 2, "r.name": "q"}}  # fmt: skip
    assert alike(arms, "r.t") == [["a", "b"], ["c"]]
    assert alike(arms, "r.", "x") == [["a", "b", "c"]]
    assert without(arms["a"], "r.") == {"x": 1}
    assert told(arms["a"], [arms["c"]]) == "x 1, r p"
    assert dict(flat({"a": {"b": {"c": 1}, "d": None}})) == {"a.b.c": 1, "a.d": None}


def test_lines_are_told_apart_without_colour() -> None:
    found = looks(24)
    assert len({(look.color, look.linestyle) for look in found}) == 24
    for colour in {look.color for look in found}:
        own = [look for look in found if look.color == colour]
        assert len({look.linestyle for look in own}) == len(own)


def test_a_name_is_on_one_line_and_not_too_long() -> None:
    assert named("a\nb") == "a b"
    assert len(named("x" * 100)) == 40
    assert not named("_x").startswith("_")


def test_a_damaged_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / STEPS).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"steps\.parquet is damaged"):
        read_source(tmp_path)
