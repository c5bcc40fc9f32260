"""What an arm's training has cost, by the times that a manifest records."""

from dataclasses import dataclass
from typing import Literal

from bench.results.manifest import Manifest


@dataclass(frozen=True)
class Cost:
    """Of all training runs of an arm; a run that was taken up again counts from there."""

    hours: float
    """Wall time by devices: hours of one core, or of one GPU."""
    device: Literal["CPU", "GPU"]
    """What the hours are of."""
    seconds_per_step: float
    """Wall time of an optimiser step, start and end of the runs included."""


def training_cost(manifest: Manifest, arm: str) -> Cost | None:
    """The cost of an arm; None if the manifest does not record all of it."""
    shared: dict[str, list[str]] = {}
    for run in manifest.runs:  # Arms of equal settings share a run, which is named after one.
        shared.setdefault(run.run_id, []).append(f"training {run.arm} seed {run.seed}")
    took = {s.label: s.seconds for s in manifest.stages if s.kind == "train" and s.seconds}
    own = {run.run_id: run for run in manifest.runs if run.arm == arm}
    seconds = [next(filter(None, map(took.get, shared[name])), None) for name in own]
    steps = [run.config.get("steps") for run in own.values()]
    if not own or None in seconds or not all(isinstance(n, int) and n > 0 for n in steps):
        return None
    said = manifest.spec.get("training")
    execution = said if isinstance(said, dict) else {}
    on_cpu = execution.get("device", "cpu") == "cpu"
    processes = execution.get("processes", 1)
    if not isinstance(processes, int):
        return None
    each = manifest.machine.threads_per_worker if on_cpu else 1
    total = sum(filter(None, seconds))
    return Cost(
        hours=total * processes * each / 3600,
        device="CPU" if on_cpu else "GPU",
        seconds_per_step=total / sum(filter(None, steps)),
    )
