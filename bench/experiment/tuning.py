"""The choice that trials are made for; see :mod:`bench.spec.tuning`."""

import itertools
from pathlib import Path

from bench.results import protocol
from bench.results.analysis import Results
from bench.results.files import read_results
from bench.spec.model import Spec
from bench.spec.tuning import Trial, trials
from trainers.errors import UserError
from trainers.input.checked import shown


def choose(spec: Spec, folder: Path) -> protocol.Tuning:
    """What the results of the trials in ``folder`` say: of each arm the best trial is chosen.

    A trial that lacks a score is not chosen. Of equally good ones the first is.

    Raises:
        UserError: If the folder cannot be read, or all trials of an arm failed.
    """
    results = read_results(folder)
    tried = trials(spec)
    scores = {trial.name: _score(results, trial) for trial in tried}
    by_arm = itertools.groupby(tried, key=lambda trial: trial.arm)
    best = {_best(results, arm, [*own], scores) for arm, own in by_arm}
    prompts = results.protocol.prompts
    return protocol.Tuning(
        prompts=prompts.name,
        prompts_sha256=prompts.sha256,
        n_prompts=len(prompts.ids),
        seeds=tuple(results.protocol.training_seeds()),
        trials=tuple(
            protocol.Trial(arm=trial.arm, settings=trial.point, score=scores[trial.name],
                           chosen=trial.name in best)
            for trial in tried
        ),
    )  # fmt: skip


def _score(results: Results, trial: Trial) -> float | None:
    """Mean of the primary reward over all seeds and prompts; None where any is missing."""
    found = results.means[trial.name][results.protocol.primary]
    return None if found is None or found.n_missing else found.mean


def _best(results: Results, arm: str, own: list[Trial], scores: dict[str, float | None]) -> str:
    """Name of the best trial of an arm."""
    sign = 1 if results.protocol.rewards[0].direction == "higher" else -1
    found = {trial.name: score for trial in own if (score := scores[trial.name]) is not None}
    if not found:
        raise UserError(
            f"tuning: no trial of {shown(arm)} has all its scores: see why they failed, or give "
            "it another space"
        )
    return max(found, key=lambda name: sign * found[name])
