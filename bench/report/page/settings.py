"""Settings side by side: those that differ, and where a result came from."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from bench.report.cells import Cell, Table, name
from bench.report.figures.source import flat
from bench.report.tables import NOTHING
from bench.results.manifest import Manifest
from bench.results.protocol import Protocol


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Values as JSON by dotted key, texts as they are."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat(settings)}


def side_by_side(title: str, settings: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The settings that are not equal everywhere, a column for each; None where all are."""
    columns = {label: _texts(found) for label, found in settings.items()}
    keys = dict.fromkeys(key for found in columns.values() for key in found)
    rows = [(key, [found.get(key) for found in columns.values()]) for key in keys]
    rows = [(key, values) for key, values in rows if len(set(values)) > 1]
    if not rows:
        return None
    cells = tuple((name(key), *map(_cell, values)) for key, values in rows)
    return Table(title, (name("setting"), *map(name, columns)), cells)


def _cell(value: str | None) -> Cell:
    return NOTHING if value is None else name(value)


def of_arms(manifest: Manifest) -> Table | None:
    """What the arms were trained with, where they differ; the first seed of each."""
    runs = {run.arm: run.config for run in reversed(manifest.runs)}
    arms = dict.fromkeys(run.arm for run in manifest.runs)
    return side_by_side("Settings in which the arms differ", {arm: runs[arm] for arm in arms})


def of_folder(protocol: Protocol, manifest: Manifest | None) -> dict[str, Any]:
    """All settings that two results may differ in."""
    said = protocol.model_dump(mode="json", exclude={"arms", "control", "comparisons", "rewards"})
    said["prompts"]["ids"] = len(protocol.prompts.ids)
    said["arms"] = {arm.name: f"{len(arm.seeds)} seed(s)" for arm in protocol.arms}
    said["rewards"] = {reward.name: reward.signature for reward in protocol.rewards}
    if manifest is not None:
        known = manifest.model_dump(mode="json", include={"spec", "inputs", "packages", "machine"})
        commit = manifest.git.commit if manifest.git else None
        said |= {**known, "command": shlex.join(manifest.command), "commit": commit}
    return said


def origin(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Where a result came from, a line for each thing."""
    inputs, machine = manifest.inputs, manifest.machine
    yield "command", shlex.join(manifest.command)
    yield "written", manifest.written
    if (git := manifest.git) is not None:
        changed = f", with uncommitted changes ({git.patch_sha256})" if git.dirty else ""
        yield "code", f"{git.origin or 'a local repository'}, commit {git.commit}{changed}"
    pairs = inputs.pairs.name
    yield "base model", f"{inputs.base.name}, sha256 {inputs.base.sha256}"
    yield "pairs", pairs if isinstance(pairs, str) else json.dumps(pairs)
    yield "prompts", f"{inputs.prompts.name}, sha256 {inputs.prompts.sha256}"
    yield "packages", ", ".join(f"{k} {v}" for k, v in manifest.packages.items() if v)
    yield "machine", ", ".join(
        [f"{machine.system} {machine.machine}", f"{machine.cores} cores", machine.cpu_capability,
         f"{machine.threads_per_worker} thread(s) a process", *machine.gpus,
         f"Python {machine.python}"]
    )  # fmt: skip
    kinds = dict.fromkeys(stage.kind for stage in manifest.stages)
    for kind in kinds:
        stages = [stage for stage in manifest.stages if stage.kind == kind]
        seconds = sum(stage.seconds or 0 for stage in stages)
        missing = sum(stage.state == "missing" for stage in stages)
        gaps = f", {missing} missing" if missing else ""
        yield f"stage: {kind}", f"{len(stages)}, {seconds:,.0f} s together{gaps}"


def reproduction(protocol: Protocol, manifest: Manifest | None, folder: str) -> str:
    """The commands that make a result and its page again."""
    if manifest is None:
        return f"bench report {shlex.quote(folder)}"
    lines = [] if manifest.git is None else [f"git checkout {manifest.git.commit}"]
    return "\n".join([*lines, shlex.join(manifest.command), f"bench report {shlex.quote(folder)}"])
