"""The result folder: per-image scores, the plan of the analysis, and what is rendered from them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import bench
from bench.experiment.prepare import Experiment
from bench.report.tables import FORMATS
from bench.results.analysis import ArmPlan, Plan, Results, analyse
from bench.rewards.engine import SCORES
from bench.spec.matrix import BASE, CONTROL
from bench.stages.store import Store, as_json
from trainers.errors import UserError
from trainers.files import write_atomically, write_text

PLAN = "plan.json"
MANIFEST = "manifest.json"


def make_plan(experiment: Experiment) -> Plan:
    """The analysis that a spec declares."""
    spec, prompts = experiment.spec, experiment.prompts
    arms = [ArmPlan(name=BASE, seeds=(None,))]
    arms += [ArmPlan(name=a.name, seeds=tuple(a.configs)) for a in experiment.matrix.arms]
    pairs = tuple(range(spec.statistics.control_pairs))
    g = spec.generate
    left = f", {prompts.repeated} repeated left out" if prompts.repeated else ""
    footer = [
        f"{len(prompts.items)} prompts of {prompts.name} ({prompts.split} split, sha256 "
        f"{prompts.sha256[:12]}{left}), {g.images_per_prompt} image(s) each: {g.sampler}, "
        f"{g.steps} steps, guidance {g.guidance:g}, eta {g.eta:g}, seed {g.seed}, {g.dtype}.",
        f"{experiment.pairs} training pairs ({experiment.ties} ties dropped); training seeds "
        f"{', '.join(str(s) for s in spec.seeds)}.",
        *(f"{name}: {card['signature']}" for name, card in experiment.cards.items()),
        f"dpo-bench {bench.__version__}.",
    ]
    return Plan(
        title=spec.title,
        label=spec.label,
        arms=tuple(arms),
        control=(ArmPlan(name=f"{CONTROL}'", seeds=pairs), ArmPlan(name=CONTROL, seeds=pairs)),
        comparisons=tuple((c.on, c.off, c.question) for c in experiment.matrix.comparisons),
        prompts=tuple(name for name, _ in prompts.items),
        images_per_prompt=g.images_per_prompt,
        rewards={name: card["direction"] for name, card in experiment.cards.items()},
        marks=_marks(experiment),
        primary=spec.primary,
        alpha=spec.statistics.alpha,
        delta0=spec.statistics.delta0,
        tie=spec.statistics.tie,
        footer=tuple(footer),
    )


def _marks(experiment: Experiment) -> dict[str, str]:
    """Rewards that took part in the labels, or learnt from the prompts they are to judge by."""
    marks: dict[str, str] = {}
    for name, card in experiment.cards.items():
        reasons = []
        if name in experiment.spec.labelled_by:
            reasons.append("the preferences of the training pairs were made from it")
        learnt = set(card["trained_on"])
        if same := sorted(learnt.intersection(experiment.prompts.datasets)):
            reasons.append(f"trained on {', '.join(same)}, where the prompts come from")
        families = {d.partition("/")[0] for d in experiment.prompts.datasets}
        if kin := sorted(d for d in learnt - set(same) if d.partition("/")[0] in families):
            reasons.append(f"trained on {', '.join(kin)}, of one source with the prompts")
        if reasons:
            marks[name] = "; ".join(reasons)
    return marks


def collect(experiment: Experiment, store: Store) -> pa.Table:
    """All scores that are done, tidy: one row per image and reward, in a fixed order.

    Columns: exp, arm, run_id, train_seed (null for the base model), prompt_id, k, image_sha256,
    reward, signature, score (null where it is not finite).
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
            prompts = rows["prompt"].to_pylist()
            parts.append(
                pa.table(
                    {
                        "exp": [experiment.spec.name] * n,
                        "arm": [entry.arm] * n,
                        "run_id": [run_id] * n,
                        "train_seed": pa.array([entry.seed] * n, pa.int64()),
                        "prompt_id": [ids[prompt] for prompt in prompts],
                        "k": rows["k"],
                        "image_sha256": rows["image_sha256"],
                        "reward": [stage.reward] * n,
                        "signature": [stage.signature] * n,
                        "score": rows["score"],
                    }
                )
            )
    if not parts:
        raise UserError("no scores to put into a table: run the stages that failed again")
    return pa.concat_tables(parts)


def write_results(
    folder: Path, plan: Plan, scores: pa.Table, manifest: dict[str, Any] | None
) -> Results:
    """Write scores, plan, manifest and every rendering; returns the results."""
    write_atomically(
        folder / "scores.parquet", lambda part: pq.write_table(scores, part, compression="zstd")
    )
    write_text(folder / PLAN, as_json(plan.model_dump(mode="json")))
    if manifest is not None:
        write_text(folder / MANIFEST, as_json(manifest))
    return render(folder)


def render(folder: Path) -> Results:
    """Write the tables of a result folder from its scores and plan."""
    results = read_results(folder)
    for name, text in FORMATS.items():
        write_text(folder / name, text(results))
    return results


def stale(folder: Path) -> list[str]:
    """Rendered files that differ from what the scores and the plan give, byte for byte."""
    results = read_results(folder)
    return [
        name
        for name, text in FORMATS.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text(results).encode()
    ]


def read_results(folder: Path) -> Results:
    """Analyse the scores of a result folder.

    Raises:
        UserError: If scores or plan are missing, or rows of one column have several signatures.
    """
    for name in ("scores.parquet", PLAN):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} holds no {name}: give a folder that 'bench ablate' has written"
            )
    try:
        plan = Plan.model_validate(json.loads((folder / PLAN).read_text()))
        scores: pd.DataFrame = pq.read_table(folder / "scores.parquet").to_pandas()
    except ValueError as error:
        raise UserError(
            f"{folder}: {PLAN} or scores.parquet is damaged: run the 'bench ablate' again that "
            "has written them"
        ) from error
    mixed = scores.groupby("reward")["signature"].nunique()
    if (mixed > 1).any():
        raise UserError(
            f"{folder}/scores.parquet mixes scores of different signatures for "
            f"{mixed[mixed > 1].index[0]}: score all images with one version of the reward"
        )
    return analyse(scores, plan)
