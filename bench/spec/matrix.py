"""From a spec to arms, runs and the comparisons that were declared."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations, islice
from typing import Any

from bench.spec.model import Interaction, Overrides, Spec, override
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.input.checked import check, key_text, listed, shown

BASE = "base"
CONTROL = "A/A"
"""Name under which the second image set of each A/A pair is stored; the first is ``A/A'``."""
RESERVED = (BASE, CONTROL, f"{CONTROL}'")
ARMS, RUNS, FAMILY = 10_000, 100_000, 10_000
"""Arms, training runs and declared comparisons of an experiment at most."""
ELSEWHERE = {
    "seed": "seeds", "backbone": "backbone", "base_sha256": "base", "data_sha256": "data",
}  # fmt: skip
"""Fields of a run that a spec gives by keys of its own."""
Changes = dict[str, tuple[tuple[str, ...], tuple[Overrides, ...]]]
"""By arm, the components that are on in it, and what it changes in ``train``."""


@dataclass(frozen=True)
class Arm:
    """One configuration, trained once per seed."""

    name: str
    components: tuple[str, ...]
    configs: dict[int, TrainConfig]
    """By training seed."""


@dataclass(frozen=True)
class Comparison:
    """A paired difference that belongs to the declared family of tests."""

    name: str
    """As tables have it, e.g. ``DPO+A - DPO``."""
    on: tuple[str, ...]
    """Arms that count for it, one but for an interaction."""
    off: tuple[str, ...]
    """Arms that count against it, as many."""
    question: str


@dataclass(frozen=True)
class Matrix:
    """Every arm of an experiment, and what is compared with what."""

    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    gain: str | None
    """Name of the comparison that others are held against; None where none of it is left."""

    def twins(self) -> dict[str, str]:
        """Arms whose runs are those of an earlier one, by name, and that arm's name."""
        first: dict[tuple[str, ...], str] = {}
        found: dict[str, str] = {}
        for arm in self.arms:
            runs = tuple(config.run_id() for config in arm.configs.values())
            if (earlier := first.setdefault(runs, arm.name)) != arm.name:
                found[arm.name] = earlier
        return found


def build_matrix(
    spec: Spec, base_sha256: str, data_sha256: str, tuned: Mapping[str, Overrides] | None = None
) -> Matrix:
    """Resolve a spec.

    Args:
        spec: The experiment.
        base_sha256: Of the base model.
        data_sha256: Of the pairs.
        tuned: Settings that were chosen for arms, by name: each makes a further arm.

    Raises:
        UserError: If a run's settings are not valid; the message names the arm.
    """
    fixed = {"backbone": spec.backbone, "base_sha256": base_sha256, "data_sha256": data_sha256}
    _refuse_many(spec)
    changes = _changes(spec)
    chosen = tuned or {}
    for name, point in chosen.items():
        parts, deltas = changes[name]
        _add(changes, tuned_name(name), parts, (*deltas, point))
    declared = _declared(spec, changes, chosen)
    gain = _gain(spec, [comparison.name for comparison in declared])
    arms = tuple(
        Arm(name, parts, _configs(name, spec, fixed, deltas))
        for name, (parts, deltas) in changes.items()
    )
    twins = Matrix(arms, (), None).twins()
    # Two arms that are one run have no difference to be tested.
    kept = [c for c in declared if sorted(twins.get(a, a) for a in c.on)
            != sorted(twins.get(a, a) for a in c.off)]  # fmt: skip
    return Matrix(arms, tuple(kept), gain if gain in {c.name for c in kept} else None)


def _refuse_many(spec: Spec) -> None:
    """Refuse what nobody could run, before it is laid out."""
    objectives, parts, controls = len(spec.objectives), len(spec.components), len(spec.controls)
    arms = objectives * 2 ** min(parts, 64) + controls
    if arms > ARMS or arms * len(spec.seeds) > RUNS:
        raise UserError(
            f"spec {spec.name!r}: expected at most {ARMS} arms and {RUNS} runs, got more from "
            f"{objectives} objectives with {parts} components, {controls} controls and "
            f"{len(spec.seeds)} seeds: leave some out"
        )


def arm_name(objective: str, parts: tuple[str, ...]) -> str:
    """``DPO``, ``DPO+A``, ``DPO+A+B``."""
    return "+".join([objective, *parts])


def tuned_name(arm: str) -> str:
    """Name of the arm with the settings that were chosen for it."""
    return f"{arm} tuned"


def tuned_arms(spec: Spec) -> tuple[str, ...]:
    """Arms whose settings are chosen by trials: those that are named, or those of objectives.

    Raises:
        UserError: If one is named that is none.
    """
    if spec.tuning is None:
        return ()
    subsets = _subsets(tuple(spec.components))
    every = tuple(arm_name(objective, parts) for objective in spec.objectives for parts in subsets)
    known = (*every, *spec.controls)
    if unknown := [name for name in spec.tuning.arms if name not in known]:
        raise UserError(
            f"spec {spec.name!r}: tuning.arms names an unknown arm {shown(unknown[0])}: known are "
            f"{listed(known)}"
        )
    return spec.tuning.arms or every


def arm_trains(spec: Spec) -> dict[str, dict[str, Any]]:
    """What ``train`` says in each arm, by name.

    Raises:
        UserError: If two arms would have one name, or one starts from an unknown one.
    """
    trains: dict[str, dict[str, Any]] = {}
    for name, (_, deltas) in _changes(spec).items():
        trains[name] = spec.train
        for delta in deltas:
            trains[name] = override(trains[name], delta)
    return trains


def _subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(names, n) for n in range(len(names) + 1)))


def _changes(spec: Spec) -> Changes:
    """What each arm changes in ``train``, in the order of the table.

    Of each the changes that are made one after the other: one may replace what an earlier one set.
    """
    changes: Changes = {}
    for objective, delta in spec.objectives.items():
        for parts in _subsets(tuple(spec.components)):
            on = [spec.components[part].set for part in parts]
            _refuse_overlap(parts, on)
            _add(changes, arm_name(objective, parts), parts, (delta, *on))
    for name, control in spec.controls.items():
        if (origin := spec.origin(control)) not in changes:
            raise UserError(
                f"control {key_text(name)!r} starts from an unknown arm {shown(origin)}: known "
                f"are {listed(changes)}"
            )
        _add(changes, name, (), (*changes[origin][1], control.set))
    return changes


def _add(
    changes: Changes, name: str, parts: tuple[str, ...], deltas: tuple[Overrides, ...]
) -> None:
    """Add an arm, unless its name is taken: scores are told apart by it."""
    if name in changes or name in RESERVED:
        raise UserError(
            f"two arms would be called {key_text(name)!r}: rename an objective or a control"
        )
    changes[name] = (parts, deltas)


def _refuse_overlap(parts: tuple[str, ...], on: list[Overrides]) -> None:
    """Two components that set the same key have no meaning together."""
    for (first, a), (second, b) in combinations(zip(parts, on, strict=True), 2):
        if shared := [x for x in a for y in b if _overlap(x, y)]:
            raise UserError(
                f"components {first!r} and {second!r} both set {shared[0]!r}: "
                "make them objectives or controls instead"
            )


def _overlap(first: str, second: str) -> bool:
    """Whether two dotted keys are one, or one leads into what the other replaces."""
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def _configs(
    name: str, spec: Spec, fixed: dict[str, str], deltas: tuple[Overrides, ...]
) -> dict[int, TrainConfig]:
    """The runs of an arm by seed, which is all that they differ in."""
    try:
        train = spec.train
        for delta in deltas:
            train = override(train, delta)
        if set_elsewhere := [key for key in ELSEWHERE if key in train]:
            key = set_elsewhere[0]
            raise UserError(f"train.{key}: expected no such key here: give {ELSEWHERE[key]!r}")
        first = check(TrainConfig, {**train, **fixed, "seed": spec.seeds[0]}, above="train.")
    except UserError as error:
        raise UserError(f"spec {spec.name!r}, arm {key_text(name)!r}: {error}") from error
    return {seed: first.model_copy(update={"seed": seed}) for seed in spec.seeds}


def _difference(on: str, off: str, question: str) -> Comparison:
    return Comparison(f"{on} - {off}", (on,), (off,), question)


def _comparisons(spec: Spec) -> Iterator[Comparison]:
    """What objectives, components and controls make of the family.

    Objective against base, every component added to every arm without it, all components against
    none, every objective against every earlier one, and every control against its origin; a rival
    against the base model and all components, too.
    """
    names = tuple(spec.components)
    for objective in spec.objectives:
        yield _difference(objective, BASE, f"does {objective} beat the base model?")
        for parts in _subsets(names):
            for name in (n for n in names if n not in parts):
                more = tuple(n for n in names if n in parts or n == name)
                on, off = arm_name(objective, more), arm_name(objective, parts)
                yield _difference(on, off, f"does {name} help {off}?")
        if len(names) > 1:
            on = arm_name(objective, names)
            yield _difference(on, objective, f"do {' and '.join(names)} help {objective}?")
    for earlier, later in combinations(spec.objectives, 2):
        yield _difference(later, earlier, f"does {later} beat {earlier}?")
    for name, control in spec.controls.items():
        origin = spec.origin(control)
        yield _difference(name, origin, f"does {name} beat {origin}?")
        if control.of is None:
            yield _difference(name, BASE, f"does {name} beat the base model?")
            if names:
                on = arm_name(origin, names)
                yield _difference(on, name, f"does {on} beat {name}?")


def _at_best(made: Comparison, tuned: Collection[str]) -> Comparison | None:
    """The same comparison between arms at their chosen settings; None where some have none."""
    sides = [
        tuple(tuned_name(a) if a in tuned else a for a in side) for side in (made.on, made.off)
    ]
    if any(a not in tuned and a != BASE for a in (*made.on, *made.off)):
        return None
    name = f"{tuned_name(made.on[0])} - {sides[1][0]}"
    return Comparison(name, sides[0], sides[1], f"each at its best: {made.question}")


def _declared(spec: Spec, arms: Collection[str], tuned: Collection[str] = ()) -> list[Comparison]:
    """The declared family of tests, those of tuned arms after those that they are made of.

    Raises:
        UserError: If a further comparison names what is not there, or is there already, or there
            are more than ``FAMILY``.
    """
    found = list(islice(_comparisons(spec), FAMILY + 1))
    found += [best for made in found if (best := _at_best(made, tuned)) is not None]
    later = {tuned_name(arm) for arm in tuned_arms(spec)}  # Made when their settings are chosen.
    names = {made.name for made in found}
    for further in spec.comparisons:
        made = _read(further) if isinstance(further, str) else _interaction(spec, further)
        where = f"spec {spec.name!r}: comparison {key_text(made.name)!r}"
        unknown = [n for n in (*made.on, *made.off) if n not in arms and n != BASE]
        if unknown and later.issuperset(unknown):
            continue
        if unknown:
            raise UserError(
                f"{where} names an unknown arm {key_text(unknown[0])!r}: known are "
                f"{listed((BASE, *sorted(arms)))}"
            )
        if made.name in names:
            raise UserError(f"{where} is in the family already: remove it")
        names.add(made.name)
        found.append(made)
    if len(found) > FAMILY:
        raise UserError(
            f"spec {spec.name!r}: expected at most {FAMILY} comparisons, got more, one for "
            f"each two of {len(spec.objectives)} objectives among them: make most of them controls"
        )
    return found


def _read(text: str) -> Comparison:
    """``DPO+A - SFT``."""
    on, _, off = text.partition(" - ")
    return _difference(on, off, f"does {on} beat {off}?")


def _interaction(spec: Spec, asked: Interaction) -> Comparison:
    first, second = asked.interaction
    both = arm_name(asked.of, tuple(n for n in spec.components if n in asked.interaction))
    one, other = arm_name(asked.of, (first,)), arm_name(asked.of, (second,))
    return Comparison(
        f"{first} x {second} in {asked.of}", (both, asked.of), (one, other),
        f"does {first} do more for {asked.of} with {second} on than without?",
    )  # fmt: skip


def _gain(spec: Spec, declared: list[str]) -> str:
    """Name of the comparison that differences are held against.

    Raises:
        UserError: If it is not of the family.
    """
    first = next(iter(spec.objectives))
    gain = spec.statistics.equivalence.of or f"{first} - {BASE}"
    if gain not in declared:
        raise UserError(
            f"spec {spec.name!r}: statistics.equivalence.of: no comparison {shown(gain)}: expected "
            f"one of {listed(declared)}"
        )
    return gain
