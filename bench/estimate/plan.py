"""``bench plan``: what a spec would take, without weights, data or a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.assets import model_folder
from bench.estimate.architectures import Architecture, find_architecture
from bench.estimate.images import (
    REWARDS,
    Sampling,
    encoding_memory,
    encoding_space,
    generation_memory,
    image_flops,
    scoring_memory,
)
from bench.estimate.network import network_cost, text_parameters, vae_cost
from bench.estimate.training import guesses, step_flops, training_memory, training_of
from bench.spec.matrix import build_matrix
from bench.spec.model import Spec
from bench.spec.prompts import count_prompts
from bench.terminal import print_json
from trainers.config import TrainConfig
from trainers.conventions import BETA_CONVENTIONS, beta_there, unscaled_lr
from trainers.errors import UserError
from trainers.machine.batches import split_batch


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted."""

    tflops: float = 100.0
    """Operations that a device sustains, in 10^12 a second."""
    devices: int | None = None
    """Devices that share the work; None for as many as the spec's training has processes."""


def budget(spec: Spec, assumed: Assumptions) -> dict[str, Any]:
    """Everything a plan says, as plain data.

    Raises:
        UserError: If the base model or the prompt set is neither there nor known.
    """
    model = find_architecture(spec.base, _folder(spec.base))
    matrix = build_matrix(spec, "0" * 64, "0" * 64)
    configs = {arm.name: next(iter(arm.configs.values())) for arm in matrix.arms}
    made = spec.generate
    side, drawn = _side(spec, model), (made.height or 0) // model.factor or model.side
    cost, drawing = network_cost(model, side), network_cost(model, drawn)
    vae, encode, _ = vae_cost(model, side)
    texts, decode = text_parameters(model), vae_cost(model, drawn)[2]
    sampling = Sampling(made.steps, made.guidance > 1, made.batch_size, made.dtype)
    prompts = count_prompts(spec.prompts, spec.prompt_limit, spec.prompt_files)
    sets = len(spec.seeds) * len(configs) + 1 + 2 * spec.statistics.control_pairs
    images = sets * prompts * made.images_per_prompt
    processes = spec.training.processes
    runs = {name: training_of(config, processes) for name, config in configs.items()}
    seen = sum(len(spec.seeds) * c.steps * c.batch_size for c in configs.values())
    pairs, data = _pairs(configs), next(iter(configs.values())).data
    flops = {
        "encoding": 2.0 * (pairs if spec.encoding.cache else seen) * encode,
        "training": sum(
            len(spec.seeds) * c.steps * step_flops(runs[name], cost, c.batch_size)
            for name, c in configs.items()
        ),
        "generation": float(images * image_flops(sampling, drawing, decode)),
        "scoring": float(images * sum(REWARDS.get(r, 0) for r in spec.rewards)),
    }
    hours = {name: value / (assumed.tflops * 1e12) / 3600 for name, value in flops.items()}
    memory = {name: training_memory(run, cost) for name, run in runs.items()}
    scoring = scoring_memory(spec.rewards, spec.scoring.dtype)
    devices = assumed.devices or processes
    return {
        "name": spec.name,
        "architecture": model.name,
        "source": model.source,
        "latent_side": side,
        "parameters": {"network": cost.parameters, "autoencoder": vae, "text encoders": texts},
        "forward_gflop": cost.forward_flops / 1e9,
        "training_gib": {name: parts | {"total": sum(parts.values())}
                         for name, parts in memory.items()},
        "processes": processes,
        "encoding_gib": encoding_memory(model, vae, texts, side, spec.encoding.batch_size,
                                        data.precision),
        "generation_gib": generation_memory(sampling, model, drawing, vae + texts, drawn),
        "scoring_gib": {"all": sum(scoring.values()), "largest": max(scoring.values())},
        "encodings": {"kept": spec.encoding.cache, "pairs": pairs,
                      "latents_gib": encoding_space(model, side, pairs, data.precision)},
        "not_counted": [r for r in spec.rewards if r not in REWARDS],
        "guesses": sorted({guess for run in runs.values() for guess in guesses(run)}),
        "batch": {name: _batch(config, processes) for name, config in configs.items()},
        "runs": len(spec.seeds) * len(configs),
        "optimiser_steps": sum(len(spec.seeds) * c.steps for c in configs.values()),
        "pairs_seen": seen,
        "prompts": prompts,
        "images": images,
        "scores": images * len(spec.rewards),
        "gpu_hours": hours | {"total": sum(hours.values())},
        "wall_hours": sum(hours.values()) / devices,
        "assumed": {"tflops": assumed.tflops, "devices": devices},
        "beta": _betas(spec, model, side),
    }  # fmt: skip


def _folder(base: str) -> Path | None:
    try:
        return model_folder(base)
    except UserError:  # Not there: a plan needs its name only.
        return None


def _side(spec: Spec, model: Architecture) -> int:
    """Latent height: from the resolution of the data where a spec sets one."""
    resolution = spec.train.get("data", {}).get("resolution")
    return int(resolution) // model.factor if resolution else model.side


def _pairs(configs: dict[str, TrainConfig]) -> int:
    """Pairs to encode: those of the largest subset, or as many as the longest run sees."""
    return max(
        c.data.subset if isinstance(c.data.subset, int) else c.steps * c.batch_size
        for c in configs.values()
    )


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


def _betas(spec: Spec, model: Architecture, side: int) -> dict[str, float]:
    """How other sources would quote the beta of the objectives, if there is one."""
    beta = spec.train.get("objective", {}).get("beta")
    if beta is None:
        return {}
    shape = (int(model.vae.get("latent_channels", 4)), side, side)
    return {"here": beta} | {name: beta_there(beta, name, shape) for name in BETA_CONVENTIONS}


def print_budget(spec: Spec, assumed: Assumptions, as_json: bool) -> None:
    """Print a plan."""
    plan = budget(spec, assumed)
    if as_json:
        print_json(plan)
        return
    console = Console(highlight=False)
    console.print(f"{spec.title}\n{plan['architecture']}: {plan['source']}", markup=False)
    counted = ", ".join(f"{k} {v / 1e6:,.1f} M" for k, v in plan["parameters"].items())
    console.print(f"parameters: {counted}; one forward on a {plan['latent_side']}^2 latent "
                  f"{plan['forward_gflop']:,.1f} GFLOP")  # fmt: skip
    console.print(_memory(plan["training_gib"], plan["processes"]))
    for line in (*_other_memory(plan), *_batches(plan["batch"])):
        console.print(line)
    console.print(f"{plan['runs']} runs, {plan['optimiser_steps']:,} steps, "
                  f"{plan['pairs_seen']:,} pairs seen, {plan['prompts']:,} prompts, "
                  f"{plan['images']:,} images, {plan['scores']:,} scores")  # fmt: skip
    hours = ", ".join(f"{k} {_hours(v)}" for k, v in plan["gpu_hours"].items())
    taken = plan["assumed"]
    console.print(f"GPU-hours: {hours}; {_hours(plan['wall_hours'])} h on {taken['devices']} "
                  "device(s)")  # fmt: skip
    console.print(
        f"assumed: {taken['tflops']:g} TFLOP/s sustained (--tflops), on all devices at once "
        "(--devices); a backward costs two forwards, one with LoRA; activations as autograd keeps "
        "them, half of it in half precision. Libraries, workspace and fragmentation come on top: "
        "about 2 GiB where it was measured, on a CPU (docs/performance.md)"
    )
    if plan["guesses"]:
        console.print(f"guessed: {'; '.join(plan['guesses'])}", markup=False)
    if plan["not_counted"]:
        console.print(f"no operations counted: rewards {', '.join(plan['not_counted'])}")
    if plan["beta"]:
        console.print("beta: " + ", ".join(f"{v:.4g} ({k})" for k, v in plan["beta"].items()))


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _memory(arms: dict[str, dict[str, float]], processes: int) -> Table:
    each = "" if processes == 1 else f", in each of {processes} processes"
    title = f"memory of training{each}, GiB"
    table = Table(title=title, title_justify="left", title_style="italic")
    table.add_column("")
    # Arms of equal memory share a column: there may be a dozen.
    alike: dict[tuple[float, ...], list[str]] = {}
    for arm, parts in arms.items():
        alike.setdefault(tuple(parts.values()), []).append(arm)
    for names in alike.values():
        table.add_column(", ".join(names), justify="right", overflow="fold")
    for number, part in enumerate(next(iter(arms.values()))):
        table.add_row(part, *(f"{values[number]:.2f}" for values in alike))
    return table


def _other_memory(plan: dict[str, Any]) -> list[str]:
    scoring, encodings = plan["scoring_gib"], plan["encodings"]
    kept = f"{encodings['latents_gib']:,.1f} GiB of latents are kept on disk, besides prompts"
    return [
        f"memory of encoding {plan['encoding_gib']:.1f} GiB, of generation "
        f"{plan['generation_gib']:.1f} GiB, of scoring {scoring['all']:.1f} GiB with the weights "
        f"of all rewards, {scoring['largest']:.1f} GiB where they must take turns",
        f"{encodings['pairs']:,} pairs are encoded once; {kept}"
        if encodings["kept"]
        else "pairs are encoded in every step; nothing is kept on disk",
    ]


def _batches(arms: dict[str, dict[str, float]]) -> list[str]:
    """Arms of one batch and rate on one line."""
    alike: dict[str, list[str]] = {}
    for arm, b in arms.items():
        text = (
            f"{b['pairs']:,} pairs a step = {b['processes']} process(es) x {b['parts']:,} part(s) "
            f"x {b['pairs_a_forward']:,} pairs; lr {b['lr']:.4g} applied, with --scale_lr it would "
            f"be {b['lr_before_scaling']:.4g}"
        )
        alike.setdefault(text, []).append(arm)
    several = len(alike) > 1
    return [f"batch{' of ' + ', '.join(a) if several else ''}: {t}" for t, a in alike.items()]
