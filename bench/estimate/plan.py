"""What a spec would take, as plain data: counts, memory and time, without weights or a GPU."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.assets import model_folder
from bench.estimate.activations import count
from bench.estimate.memory import (
    encoding_memory,
    encoding_space,
    generation_memory,
    guesses,
    scoring_memory,
    training_memory,
)
from bench.estimate.rates import Rate, Time, Work, recorded, times, unknown
from bench.images.samplers import fitting
from bench.spec.matrix import build_matrix, tuned_arms, tuned_name
from bench.spec.model import Spec
from bench.spec.prompts import count_prompts
from bench.spec.tuning import trials_spec
from trainers.backbones import BACKBONES
from trainers.backbones.base import Skeleton
from trainers.config import TrainConfig
from trainers.conventions import beta_there, sources_of, unscaled_lr
from trainers.errors import UserError
from trainers.machine.batches import split_batch
from trainers.reference_errors import alike, known_positions, spared


def arm_configs(spec: Spec) -> dict[str, TrainConfig]:
    """The run of each arm for one training seed; model and data are not looked at.

    Arms whose runs are those of an earlier one are left out.
    """
    matrix = build_matrix(spec, "0" * 64, "0" * 64)
    twins = matrix.twins()
    found = {arm.name: next(iter(arm.configs.values()))
             for arm in matrix.arms if arm.name not in twins}  # fmt: skip
    # What is chosen for them is not known yet, and changes little of what a plan says.
    tuned = {tuned_name(arm): found[arm] for arm in tuned_arms(spec) if arm in found}
    return found | tuned


def budget(
    spec: Spec, devices: int | None = None, rates: Sequence[Rate] | None = None
) -> dict[str, Any]:
    """Everything a plan says.

    Args:
        spec: The experiment.
        devices: That share the work; None for as many as training has processes.
        rates: What time is computed from; None for the recorded ones.

    Raises:
        UserError: If the base model or the prompt set is neither there nor known, or the sampler
            does not fit.
    """
    made, processes = spec.generate, spec.training.processes
    fitting(made.sampler, spec.backbone, made.eta)
    model = BACKBONES.get(spec.backbone).skeleton(spec.base, _folder(spec.base))
    configs = arm_configs(spec)
    data = next(iter(configs.values())).data
    side = data.resolution // model.factor if data.resolution else model.side
    drawn = (made.height or 0) // model.factor or model.side
    network = count(model.network, lambda: model.inputs(side))
    drawing = network if drawn == side else count(model.network, lambda: model.inputs(drawn))
    vae, texts = (
        sum(p.numel() for part in parts for p in part.parameters())
        for parts in ((model.autoencoder,), model.text_encoders)
    )
    seeds = len(spec.seeds)
    prompts = count_prompts(spec.prompts, spec.prompt_limit, spec.prompt_files)
    sets = seeds * len(configs) + 1 + 2 * spec.statistics.control_pairs
    images = sets * prompts * made.images_per_prompt
    seen = sum(seeds * c.steps * c.batch_size for c in configs.values())
    pairs = _pairs(configs)
    groups, names = _sharing(spec, configs), {c.run_id(): name for name, c in configs.items()}
    without = {names[c.run_id()] for group in groups for c in spared(group)}
    # What is computed once is counted as the work of the longest run that makes use of it.
    lighter = {names[c.run_id()] for group in groups for c in spared(group)[1:]}
    works = _works(
        spec, configs, lighter, model, side, pairs if spec.encoding.cache else seen, images
    )
    rates = recorded() if rates is None else rates
    devices, missing = devices or processes, unknown(works, rates)
    found = times(works, rates)
    memory = {
        name: training_memory(c, network, processes, name in without) for name, c in configs.items()
    }
    scoring = scoring_memory(spec.rewards, spec.scoring)
    return {
        "name": spec.name,
        "architecture": model.name,
        "source": model.source,
        "latent_side": side,
        "parameters": {"network": network.parameters, "autoencoder": vae, "text encoders": texts},
        "training_gib": {name: parts | {"total": sum(parts.values())}
                         for name, parts in memory.items()},
        "processes": processes,
        "encoding_gib": encoding_memory(model, vae, texts, side, spec.encoding.batch_size,
                                        data.precision),
        "generation_gib": generation_memory(made, model, drawing, vae + texts, drawn),
        "scoring_gib": {"all": sum(scoring.values()), "largest": max(scoring.values())},
        "encodings": {"kept": spec.encoding.cache, "pairs": pairs,
                      "latents_gib": encoding_space(model, side, pairs, data.precision)},
        "guesses": sorted({guess for config in configs.values() for guess in guesses(config)}),
        "batch": {name: _batch(config, processes) for name, config in configs.items()},
        "runs": seeds * len(configs),
        "optimiser_steps": sum(seeds * c.steps for c in configs.values()),
        "pairs_seen": seen,
        "reference_errors": [{"arms": [names[c.run_id()] for c in group],
                              "positions": seeds * known_positions(spared(group)[0])}
                             for group in groups],
        "prompts": prompts,
        "images": images,
        "scores": images * len(spec.rewards),
        "devices": devices,
        "total_hours": _total(found, missing),
        "time": [asdict(time) | {"wall_hours": time.hours / devices} for time in found],
        "not_known": missing,
        "beta": _betas(configs, (model.channels, side, side)),
        "trials": _trials(spec, devices, rates),
    }  # fmt: skip


def _trials(spec: Spec, devices: int, rates: Sequence[Rate]) -> dict[str, Any] | None:
    """What the trials before an experiment take, if it has any."""
    if spec.tuning is None:
        return None
    told = budget(trials_spec(spec), devices, rates)
    return {key: told[key] for key in ("runs", "optimiser_steps", "images", "total_hours")}


def _folder(base: str) -> Path | None:
    try:
        return model_folder(base)
    except UserError:  # Not there: a plan needs its name only.
        return None


def _pairs(configs: dict[str, TrainConfig]) -> int:
    """Pairs to encode: those of the largest subset, or as many as the longest run sees."""
    return max(
        c.data.subset if isinstance(c.data.subset, int) else c.steps * c.batch_size
        for c in configs.values()
    )


def _sharing(spec: Spec, configs: dict[str, TrainConfig]) -> list[tuple[TrainConfig, ...]]:
    """Groups of runs that take errors of the pretrained network from one stage, for each seed.

    As in an experiment of which nothing is there yet.
    """
    training = spec.training
    groups = alike(configs.values(), training.processes, training.device)
    return [g for g in groups if training.share_reference and len(spared(g)) > 1]


def _works(
    spec: Spec, configs: dict[str, TrainConfig], lighter: Collection[str], model: Skeleton,
    side: int, pairs: int, images: int,
) -> list[Work]:  # fmt: skip
    """All that takes time, with the settings that a rate may ask for.

    ``lighter`` are arms that run no reference.
    """

    def work(
        part: Any, label: str, units: int, device: str, passes: int | None = None, **of: Any
    ) -> Work:
        return Work(part, label, units, {"runs_on": device.partition(":")[0]} | of, passes)

    def passes(arm: str, config: TrainConfig) -> int:
        split = split_batch(config.batch_size, config.accumulation, spec.training.processes)
        return config.passes(split) - (arm in lighter) * config.reference_passes(split)

    of: dict[str, Any] = {"model": model.name, "pixels": side * model.factor}
    return [
        work("encoding", "encoding", 2 * pairs, spec.encoding.device, **of),
        *(
            work(
                "training", f"training {arm}", len(spec.seeds) * c.steps * c.batch_size,
                spec.training.device, passes(arm, c), arm=arm, weights=c.weights.name,
                gradient_checkpointing=c.gradient_checkpointing, **of,
            )
            for arm, c in configs.items()
        ),
        work("generation", "generation", images, spec.generate.device, model=model.name,
             steps=spec.generate.steps),
        *(
            work("scoring", f"scoring by {name}", images, spec.scoring.device, reward=name)
            for name in spec.rewards
        ),
    ]  # fmt: skip


def _total(found: list[Time], missing: list[str]) -> float | None:
    """Hours of all parts, if all are known and of one device."""
    alone = not missing and len({time.device for time in found}) == 1
    return sum(time.hours for time in found) if alone else None


def _batch(config: TrainConfig, processes: int) -> dict[str, float]:
    """What a run does in a step, and what ``--scale_lr`` of the public scripts starts from."""
    lr, own = config.optimizer.lr, split_batch(config.batch_size, config.accumulation, processes)
    return {
        "pairs": config.batch_size,
        "processes": processes,
        "parts": own.parts,
        "pairs_a_forward": own.rows // own.parts,
        "lr": lr,
        "lr_before_scaling": unscaled_lr(lr, config.batch_size),
    }


def _betas(configs: dict[str, TrainConfig], shape: tuple[int, ...]) -> dict[str, float]:
    """How other sources would quote the first arm's beta that there is."""
    found = ((c.objective.name, c.objective.strength) for c in configs.values())
    name, beta = next(((name, s) for name, s in found if s is not None), ("", None))
    if beta is None:
        return {}
    sources = sources_of(name)
    return {"here": beta} | {name: beta_there(beta, name, shape) for name in sources}
