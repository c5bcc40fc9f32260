"""From an experiment and its store to what a result folder holds."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import bench
from bench.experiment.machine import git_state, machine, packages
from bench.experiment.prepare import Experiment
from bench.images.folder import SCORES
from bench.results import manifest, protocol
from bench.results.files import COLUMNS
from bench.results.manifest import Manifest
from bench.results.protocol import Mark, Protocol
from bench.spec.matrix import BASE, CONTROL
from bench.stages.store import Store
from trainers.errors import UserError


def make_protocol(experiment: Experiment) -> Protocol:
    """The analysis that a spec declares."""
    spec, prompts, images = experiment.spec, experiment.prompts, experiment.spec.generate
    control = tuple(range(spec.statistics.control_pairs))
    matrix, twins = experiment.matrix, experiment.matrix.twins()
    return Protocol(
        title=spec.title,
        label=spec.label,
        bench=bench.__version__,
        arms=(
            protocol.Arm(name=BASE, seeds=(None,)),
            *(
                protocol.Arm(
                    name=a.name,
                    seeds=tuple(a.configs),
                    same_as=twins.get(a.name),
                    prompt_prefix=(next(iter(a.configs.values())).objective.prefixes or ("",))[0],
                )
                for a in matrix.arms
            ),
        ),
        control=(
            protocol.Arm(name=f"{CONTROL}'", seeds=control),
            protocol.Arm(name=CONTROL, seeds=control),
        ),
        comparisons=tuple(
            protocol.Comparison(name=c.name, on=c.on, off=c.off, question=c.question)
            for c in matrix.comparisons
        ),
        prompts=protocol.Prompts(
            name=prompts.name,
            split=prompts.split,
            sha256=prompts.sha256,
            repeated=prompts.repeated,
            ids=tuple(name for name, _ in prompts.items),
        ),
        images=protocol.Images(
            per_prompt=images.images_per_prompt,
            **images.model_dump(include={*protocol.Images.model_fields}),
        ),
        rewards=tuple(
            protocol.Reward(
                name=name,
                direction=card["direction"],
                signature=card["signature"],
                marks=tuple(_marks(experiment, name)),
            )
            for name, card in experiment.cards.items()
        ),
        primary=spec.primary,
        statistics=protocol.Statistics(
            alpha=spec.statistics.alpha,
            gain=matrix.gain,
            share=spec.statistics.equivalence.share if matrix.gain else None,
            bound=spec.statistics.equivalence.bound,
            tie=spec.statistics.tie,
        ),
        pairs=protocol.Pairs(
            data=spec.data,
            kept=experiment.pairs,
            ties=experiment.ties,
            labelled_by=spec.labelled_by,
            shared_prompts=experiment.shared_prompts,
        ),
        tuning=experiment.tuning,
        pictures=protocol.Pictures(**spec.pictures.model_dump()),
    )


def _marks(experiment: Experiment, reward: str) -> Iterator[Mark]:
    """Whether a reward took part in the labels, or learnt from what it is to judge by."""
    if reward in experiment.spec.labelled_by:
        yield Mark(kind="labelled")
    learnt, judged = set(experiment.cards[reward]["trained_on"]), experiment.prompts.datasets
    if same := learnt.intersection(judged):
        yield Mark(kind="same-set", datasets=tuple(sorted(same)))
    families = {name.partition("/")[0] for name in judged}
    if kin := {name for name in learnt - same if name.partition("/")[0] in families}:
        yield Mark(kind="same-source", datasets=tuple(sorted(kin)))


def collect(experiment: Experiment, store: Store) -> pa.Table:
    """All scores that are done, tidy: one row per image and reward, in a fixed order.

    The columns are those of :mod:`bench.results.files`.

    Raises:
        UserError: If there are none at all.
    """
    ids = {prompt: name for name, prompt in experiment.prompts.items}
    parts: list[pa.Table] = []
    for entry in experiment.sets:
        train = entry.images.train
        run_id = train.config.run_id() if train else experiment.sets[0].images.base_sha256
        for stage in entry.scores:
            if stage.done(store) is None:
                continue
            rows = pq.read_table(stage.output(store) / SCORES)
            n = len(rows)
            values = (
                [experiment.spec.name] * n,
                [entry.arm] * n,
                [run_id] * n,
                pa.array([entry.seed] * n, pa.int64()),
                [ids[prompt] for prompt in rows["prompt"].to_pylist()],
                rows["k"],
                rows["image_sha256"],
                [stage.reward] * n,
                [stage.signature] * n,
                rows["score"],
            )
            parts.append(pa.table(dict(zip(COLUMNS, values, strict=True))))
    if not parts:
        raise UserError("no scores to put into a table yet: run the stages that are missing")
    return pa.concat_tables(parts)


def make_manifest(experiment: Experiment, store: Store) -> Manifest:
    """Everything needed to say where numbers came from."""
    return Manifest(
        bench=bench.__version__,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        command=("bench", *map(_portable, sys.argv[1:])),
        spec=experiment.spec.model_dump(mode="json"),
        runs=tuple(
            manifest.Run(arm=a.name, seed=s, run_id=c.run_id(), config=c.model_dump(mode="json"))
            for a in experiment.matrix.arms
            for s, c in a.configs.items()
        ),
        inputs=_inputs(experiment),
        rewards=experiment.cards,
        stages=tuple(_stages(experiment, store)),
        git=git_state(Path(bench.__file__).parents[1]),
        packages=packages(),
        machine=machine(),
    )


def _portable(argument: str) -> str:
    """An argument of the command line without folders of this machine: of a path its name."""
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{Path(value).name if Path(value).is_absolute() else value}"


def _inputs(experiment: Experiment) -> manifest.Inputs:
    base, spec, prompts = experiment.sets[0].images, experiment.spec, experiment.prompts
    return manifest.Inputs(
        base=manifest.Base(name=spec.base, sha256=base.base_sha256),
        pairs=manifest.Pairs(name=spec.data, kept=experiment.pairs, ties=experiment.ties),
        prompts=manifest.Prompts(
            name=prompts.name,
            sha256=prompts.sha256,
            n=len(prompts.items),
            repeated=prompts.repeated,
        ),
    )


def _stages(experiment: Experiment, store: Store) -> Iterator[manifest.Stage]:
    for stage in experiment.stages():
        status = stage.done(store)
        yield manifest.Stage(
            kind=stage.kind,
            label=stage.label,
            id=stage.id,
            state="done" if status else "missing",
            digest=status.digest if status else None,
            seconds=status.seconds if status else None,
        )
