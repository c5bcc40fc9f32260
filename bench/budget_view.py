"""``bench plan``: what a spec would take, without weights, data or a GPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.architectures import Architecture, find_architecture
from bench.assets import model_folder
from bench.budget import (
    REWARDS,
    Sampling,
    generation_memory,
    image_flops,
    step_flops,
    training_memory,
    training_of,
)
from bench.cli import print_json
from bench.matrix import build_matrix
from bench.measure import network_cost, text_parameters, vae_cost
from bench.prompts import count_prompts
from bench.spec import Spec
from trainers.conventions import BETA_CONVENTIONS, beta_there
from trainers.errors import UserError


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted."""

    tflops: float = 100.0
    """Operations that a device sustains, in 10^12 a second."""
    devices: int = 1


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
    per_set = prompts * made.images_per_prompt
    sets = len(spec.seeds) * len(configs) + 1 + 2 * spec.statistics.control_pairs
    images = sets * per_set
    pairs = max(c.steps * c.batch_size for c in configs.values())
    runs = {name: training_of(config) for name, config in configs.items()}
    flops = {
        "encoding": 2.0 * pairs * encode,
        "training": sum(
            len(spec.seeds) * c.steps * step_flops(runs[name], cost, c.batch_size)
            for name, c in configs.items()
        ),
        "generation": float(images * image_flops(sampling, drawing, decode)),
        "scoring": float(images * sum(REWARDS.get(r, (0, 0))[1] for r in spec.rewards)),
    }
    hours = {name: value / (assumed.tflops * 1e12) / 3600 for name, value in flops.items()}
    memory = {name: training_memory(run, cost) for name, run in runs.items()}
    return {
        "name": spec.name,
        "architecture": model.name,
        "source": model.source,
        "latent_side": side,
        "parameters": {"network": cost.parameters, "autoencoder": vae, "text encoders": texts},
        "forward_gflop": cost.forward_flops / 1e9,
        "training_gib": {name: parts | {"total": sum(parts.values())}
                         for name, parts in memory.items()},
        "generation_gib": generation_memory(sampling, model, drawing, vae + texts, drawn),
        "scoring_gib": max(4 * REWARDS.get(r, (0, 0))[0] for r in spec.rewards) / 2**30,
        "not_counted": [r for r in spec.rewards if r not in REWARDS],
        "runs": len(spec.seeds) * len(configs),
        "optimiser_steps": sum(len(spec.seeds) * c.steps for c in configs.values()),
        "pairs_seen": sum(len(spec.seeds) * c.steps * c.batch_size for c in configs.values()),
        "images": images,
        "scores": images * len(spec.rewards),
        "gpu_hours": hours | {"total": sum(hours.values())},
        "wall_hours": sum(hours.values()) / assumed.devices,
        "assumed": {"tflops": assumed.tflops, "devices": assumed.devices},
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
    console.print(_memory(plan["training_gib"]))
    console.print(f"generation {plan['generation_gib']:.1f} GiB, scoring "
                  f"{plan['scoring_gib']:.1f} GiB (weights of the largest reward)")  # fmt: skip
    console.print(f"{plan['runs']} runs, {plan['optimiser_steps']:,} steps, "
                  f"{plan['pairs_seen']:,} pairs seen, {plan['images']:,} images, "
                  f"{plan['scores']:,} scores")  # fmt: skip
    hours = ", ".join(f"{k} {v:,.3g}" for k, v in plan["gpu_hours"].items())
    console.print(f"GPU-hours: {hours}; {plan['wall_hours']:,.3g} h on {assumed.devices} device(s)")
    console.print(
        f"assumed: {assumed.tflops:g} TFLOP/s sustained (--tflops); a backward costs two forwards, "
        "one with LoRA; encodings are made once; activations as autograd keeps them, half of it in "
        "half precision; no fragmentation, no workspace"
    )
    if plan["not_counted"]:
        console.print(f"not counted: rewards {', '.join(plan['not_counted'])}")
    if plan["beta"]:
        console.print("beta: " + ", ".join(f"{v:.4g} ({k})" for k, v in plan["beta"].items()))


def _memory(arms: dict[str, dict[str, float]]) -> Table:
    table = Table(title="memory of training, GiB", title_justify="left", title_style="italic")
    table.add_column("")
    for arm in arms:
        table.add_column(arm, justify="right")
    for part in next(iter(arms.values())):
        table.add_row(part, *(f"{parts[part]:.2f}" for parts in arms.values()))
    return table
