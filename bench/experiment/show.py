"""What an experiment would do: runs, stages, what is there already, and a guess at the time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.experiment.folder import STORE
from bench.experiment.prepare import Experiment
from bench.experiment.run import missing_stages
from bench.launch.progress import duration
from bench.results.files import SHA256
from bench.results.pictures import PICTURES, read_images
from bench.stages.base import Stage
from bench.stages.store import Store
from bench.terminal import Column, print_json, print_table, print_text


def print_plan(
    experiment: Experiment, out: Path, workers: int, as_json: bool, trials: Experiment | None = None
) -> None:
    """Print the stages of an experiment, and of the trials before it, without running anything."""
    store = Store(out / STORE)
    if as_json:
        before = {} if trials is None else {"trials": _data(trials, store, workers)}
        print_json(_data(experiment, store, workers) | before)
        return
    if trials is not None:
        _print(trials, store, workers)
        if experiment.tuning is None:
            print_text("then, with the arms that these trials tune in addition:")
    _print(experiment, store, workers)


def _seconds(experiment: Experiment, todo: Sequence[Stage], workers: int) -> float:
    cost = experiment.spec.cost
    seconds = sum(stage.expected_seconds(cost) for stage in todo) / workers
    return seconds + cost.start if todo else seconds


def _stages(experiment: Experiment, todo: Sequence[Stage]) -> list[Stage]:
    """Those of the experiment, and what else is made for it."""
    return [*{stage.id: stage for stage in (*experiment.stages(), *todo)}.values()]


def _data(experiment: Experiment, store: Store, workers: int) -> dict[str, Any]:
    todo = missing_stages(experiment, store)
    missing = {stage.id for stage in todo}
    return {
        "name": experiment.spec.name,
        "stages": [
            {"kind": s.kind, "label": s.label, "id": s.id, "units": s.units,
             "state": "missing" if s.id in missing else "cached"}
            for s in _stages(experiment, todo)
        ],
        "prompts": len(experiment.prompts.items),
        "repeated_prompts": experiment.prompts.repeated,
        "workers": workers,
        "estimated_seconds": round(_seconds(experiment, todo, workers), 1),
    }  # fmt: skip


def _print(experiment: Experiment, store: Store, workers: int) -> None:
    todo = missing_stages(experiment, store)
    missing = {stage.id for stage in todo}
    columns = [Column(name) for name in ("arm", "seed", "run", "training", "images", "scores")]
    print_table(columns, list(_rows(experiment, missing)), experiment.spec.title)
    stages, prompts = _stages(experiment, todo), experiment.prompts
    if prompts.repeated:
        print_text(f"{len(prompts.items)} prompts; {prompts.repeated} repeated ones left out")
    print_text(
        f"{len(stages)} stages, {len(stages) - len(todo)} cached, {len(todo)} to run; about "
        f"{duration(_seconds(experiment, todo, workers))} with {workers} worker(s), from the costs "
        "in the spec"
    )


def held(folder: Path, experiment: Experiment) -> str:
    """What a result folder holds of data, and its size, in words."""
    sizes = {name: (folder / name).stat().st_size for name in SHA256 if (folder / name).exists()}
    told = [f"{name} {_size(size)}" for name, size in sizes.items()]
    images, declared = read_images(folder), experiment.spec.pictures
    if images is not None and declared.prompts:
        shipped = images.dropna(subset=["picture"])
        size = sum((folder / place).stat().st_size for place in shipped["picture"].unique())
        of = min(declared.prompts, len(experiment.prompts.items))
        n = shipped["prompt_id"].nunique()
        told.append(f"{PICTURES} {_size(size)} ({n} of {of} declared prompts")
        told[-1] += f", by pictures.limit_mb {declared.limit_mb:g})" if n < of else ")"
    return ", ".join(told)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _rows(experiment: Experiment, missing: set[str]) -> Iterator[list[str]]:
    """Of every arm and seed, and of the control."""
    seen: set[str] = set()

    def state(stage: Stage | None) -> str:
        if stage is None:
            return "-"
        # A network that was cleared away counts as cached: its images are still good.
        return f"{'missing' if stage.id in missing else 'cached'} ({stage.units})"

    for entry in experiment.sets:
        images, train = entry.images, entry.images.train
        scored = sum(stage.id not in missing for stage in entry.scores)
        identity = train.config.run_id()[:12] if train else "-"
        same = " (same run)" if train is not None and identity in seen else ""
        seen.add(identity)
        yield [
            entry.arm,
            "-" if entry.seed is None else str(entry.seed),
            identity + same,
            state(train),
            state(images),
            f"{scored}/{len(entry.scores)} cached",
        ]
