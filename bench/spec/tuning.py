"""Equal tuning: settings of each arm are chosen by as many trials, on prompts of their own.

The trials are an experiment of their own, ``<name>-tuning``, with the prompts and training seeds of
the spec's ``tuning`` section and its primary reward alone. The best by mean score becomes the arm
``<arm> tuned`` of the experiment itself: see :mod:`bench.experiment.tuning`.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from bench.spec.matrix import arm_trains, tuned_arms
from bench.spec.model import Control, Overrides, Space, Spec, Statistics, Tuning, override
from bench.spec.prompts import load_prompts
from trainers.data.select import normalise
from trainers.errors import UserError
from trainers.files import canonical_json
from trainers.input.checked import listed, shown
from trainers.seeds import numpy_generator


@dataclass(frozen=True)
class Trial:
    """A point of an arm's space, and the arm of the trials that stands for it."""

    arm: str
    point: Overrides

    @property
    def name(self) -> str:
        """``DPO+A with objective.beta 300``."""
        told = ", ".join(f"{key} {canonical_json(value)}" for key, value in self.point.items())
        return f"{self.arm} with {told}"


def trials(spec: Spec) -> list[Trial]:
    """The trials of every arm that is tuned, as many of each.

    Raises:
        UserError: If a space is of no objective or arm, an arm has none, or some would be given
            more trials than others.
    """
    tuning, arms = _tuning(spec), tuned_arms(spec)
    known = {*spec.objectives, *arms}
    if unknown := [name for name in tuning.spaces if name not in known]:
        raise UserError(
            f"spec {spec.name!r}: tuning.spaces names {shown(unknown[0])}, which is neither an "
            f"objective nor an arm that is tuned: expected some of {listed(sorted(known))}"
        )
    found = {arm: _points(spec, arm) for arm in arms}
    counts = {arm: len(points) for arm, points in found.items()}
    if len(set(counts.values())) > 1:
        few, many = min(counts, key=lambda a: counts[a]), max(counts, key=lambda a: counts[a])
        raise UserError(
            f"spec {spec.name!r}: every arm must be tuned by as many trials, and {shown(few)} "
            f"has {counts[few]}, {shown(many)} {counts[many]}: set tuning.trials to "
            f"{counts[few]} at most, or make the spaces equally large"
        )
    return [Trial(arm, point) for arm, points in found.items() for point in points]


def _tuning(spec: Spec) -> Tuning:
    if spec.tuning is None:
        raise ValueError(f"spec {spec.name!r} has no tuning section")
    return spec.tuning


def _space(spec: Spec, arm: str) -> Space:
    """That of the arm, else of its objective, else of all."""
    tuning = _tuning(spec)
    objective = spec.origin(spec.controls[arm]) if arm in spec.controls else arm
    owners = [name for name in spec.objectives if f"{objective}+".startswith(f"{name}+")]
    for name in (arm, *sorted(owners, key=len, reverse=True)):
        if name in tuning.spaces:
            return tuning.spaces[name]
    return tuning.space


def _points(spec: Spec, arm: str) -> list[Overrides]:
    """Points of a space: all, or so many of them at random, for equal spaces the same."""
    space, count = _space(spec, arm), _tuning(spec).trials
    points = [dict(zip(space, each, strict=True)) for each in itertools.product(*space.values())]
    if not space:
        raise UserError(
            f"spec {spec.name!r}: nothing is tuned of {shown(arm)}: give tuning.space, or "
            "tuning.spaces for it"
        )
    if count is None or count >= len(points):
        return points
    drawn = numpy_generator(0, "tuning").choice(len(points), count, replace=False)
    return [points[n] for n in sorted(drawn)]


def trials_spec(spec: Spec) -> Spec:
    """The experiment that tries them; each trial is an arm of it.

    Raises:
        UserError: As :func:`trials`; or if a prompt of it is one of the experiment.
    """
    tuning = _tuning(spec)
    first, delta = next(iter(spec.objectives.items()))
    trains = arm_trains(spec)
    found = {trial.name: Control(of=first, set=_changed(trains[first], trains[trial.arm], trial))
             for trial in trials(spec)}  # fmt: skip
    made = spec.model_copy(
        update={
            "name": f"{spec.name}-tuning",
            "title": f"{spec.title}: trials",
            "objectives": {first: delta},
            "components": {},
            "controls": found,
            "comparisons": (),
            "seeds": tuning.seeds,
            "prompts": tuning.prompts,
            "prompt_limit": tuning.prompt_limit,
            "prompt_files": None,
            "measures": (),
            "rewards": (spec.primary,),
            "statistics": Statistics(control_pairs=2),
            "tuning": None,
        }
    )
    _refuse_shared(spec, made)
    return made


def _changed(first: dict[str, Any], train: dict[str, Any], trial: Trial) -> Overrides:
    """The sections of ``train`` that a trial has otherwise than the first arm, or sets."""
    tried = override(train, trial.point)
    touched = {key.partition(".")[0] for key in trial.point}
    return {k: v for k, v in tried.items() if k in touched or k not in first or first[k] != v}


def _refuse_shared(spec: Spec, made: Spec) -> None:
    """Refuse trials that see what is judged by."""
    seen, judged = (
        {normalise(prompt): prompt for _, prompt in load_prompts(*where).items}
        for where in ((made.prompts, made.prompt_limit, made.prompt_files),
                      (spec.prompts, spec.prompt_limit, spec.prompt_files))
    )  # fmt: skip
    if both := seen.keys() & judged.keys():
        raise UserError(
            f"spec {spec.name!r}: {len(both)} prompts of tuning.prompts are prompts of the "
            f"experiment, {shown(judged[min(both)])} among them: tune on another set"
        )
