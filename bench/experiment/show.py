"""What an experiment would do: runs, stages, what is there already, and a guess at the time."""

from collections.abc import Iterator
from pathlib import Path

from bench.experiment.folder import STORE
from bench.experiment.prepare import Experiment
from bench.experiment.run import missing_stages
from bench.launch.progress import duration
from bench.stages.base import Stage
from bench.stages.store import Store
from bench.terminal import Column, print_json, print_table, print_text


def print_plan(experiment: Experiment, out: Path, workers: int, as_json: bool) -> None:
    """Print the stages of an experiment without running anything."""
    store = Store(out / STORE)
    todo = missing_stages(experiment, store)
    cost = experiment.spec.cost
    seconds = sum(stage.expected_seconds(cost) for stage in todo) / workers
    if todo:
        seconds += cost.start
    missing = {stage.id for stage in todo}
    stages = {stage.id: stage for stage in (*experiment.stages(), *todo)}.values()
    if as_json:
        print_json(
            {
                "name": experiment.spec.name,
                "stages": [
                    {"kind": s.kind, "label": s.label, "id": s.id, "units": s.units,
                     "state": "missing" if s.id in missing else "cached"}
                    for s in stages
                ],
                "prompts": len(experiment.prompts.items),
                "repeated_prompts": experiment.prompts.repeated,
                "workers": workers,
                "estimated_seconds": round(seconds, 1),
            }
        )  # fmt: skip
        return
    columns = [Column(name) for name in ("arm", "seed", "run", "training", "images", "scores")]
    print_table(columns, list(_rows(experiment, missing)), experiment.spec.title)
    prompts = experiment.prompts
    if prompts.repeated:
        print_text(f"{len(prompts.items)} prompts; {prompts.repeated} repeated ones left out")
    print_text(
        f"{len(stages)} stages, {len(stages) - len(todo)} cached, {len(todo)} to run; about "
        f"{duration(seconds)} with {workers} worker(s), from the costs in the spec"
    )


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
