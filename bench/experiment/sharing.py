"""Which runs take errors of the pretrained network from a stage of its own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bench.stages.base import Stage
from bench.stages.reference import ReferenceStage
from bench.stages.store import Store
from bench.stages.train import TrainStage
from trainers.reference_errors import alike, known_positions, spared


def share(stages: Sequence[Stage], store: Store) -> list[Stage]:
    """What is missing, with the stages that compute once what several runs would compute each.

    Args:
        stages: Different stages that are to run.
        store: Where errors may be from an earlier attempt: a run that is left takes them, too.
    """
    runs = {s.id: s for s in stages if isinstance(s, TrainStage) and s.training.share_reference}
    if not runs:
        return list(stages)
    training, numbers = next(iter(runs.values())).training, Counter[int]()
    by_run = {stage.config.run_id(): stage for stage in runs.values()}
    sources: list[ReferenceStage] = []
    for group in alike([s.config for s in runs.values()], training.processes, training.device):
        if not (frozen := spared(group)):
            continue
        longest, seed = by_run[frozen[0].run_id()], frozen[0].seed
        numbers[seed] += 1
        errors = ReferenceStage(
            _label(seed, numbers[seed]), longest.config, longest.base, longest.encode, training,
            known_positions(longest.config),
        )  # fmt: skip
        missing = errors.done(store) is None
        if missing and len(frozen) < 2:
            continue
        sources += [errors] if missing else []
        members = (by_run[config.run_id()] for config in group)
        runs |= {stage.id: replace(stage, errors=errors) for stage in members}
    return [*sources, *(runs.get(stage.id, stage) for stage in stages)]


def _label(seed: int, number: int) -> str:
    return f"reference errors{f' {number}' if number > 1 else ''} of seed {seed}"
