"""Steps of Stable Diffusion 1.5 at full size: random weights, made-up latents, 1 pair.

    python tests/perf/full_size.py [--steps 1] [--set weights='{name: lora, rank: 8}'] [--plan] ...

Any key of a training configuration can be set, with YAML as its value. Printed with what was
measured is what `bench plan` would say of the memory; above --limit the process gives up.
"""

import argparse
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from diffusers import DDPMScheduler
from torch import nn

from bench.estimate.activations import count
from bench.estimate.measure import Repeated
from bench.estimate.memory import training_memory
from trainers.backbones import Moments
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer

MODEL = StableDiffusion.skeleton("stable-diffusion-v1-5", None)


class Random(StableDiffusion):
    """The architecture of Stable Diffusion 1.5 with weights of no meaning."""

    def __init__(self) -> None:
        self.device = "cpu"
        self.scheduler = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        )
        kept = self.scheduler.alphas_cumprod.double()
        self.snr = kept / (1 - kept)

    def load_network(self) -> nn.Module:
        network = MODEL.network.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            with torch.no_grad():
                spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.02
                parameter.uniform_(-spread, spread, generator=generator)
        return network


def parameters(network: nn.Module) -> int:
    """Their number."""
    return sum(p.numel() for p in network.parameters())


def resident(key: str) -> float:
    """GiB of this process that are in memory, ``VmRSS``, or were at the peak, ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(key)) / 2**20, 2)


def give_up_above(gib: float) -> None:
    """End the process as soon as it takes more than ``gib``, or the machine has 1 GiB left."""

    def watch() -> None:
        process = psutil.Process()
        while process.memory_info().rss < gib * 2**30 and psutil.virtual_memory().available > 2**30:
            time.sleep(0.05)
        tell({"gave_up_at_gib": resident("VmRSS")})
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def tell(values: dict[str, Any]) -> None:
    """Print a line of JSON."""
    print(json.dumps(values), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=YAML")
    parser.add_argument("--limit", type=float, default=16.0, help="GiB above which to give up")
    parser.add_argument("--plan", action="store_true", help="only say what `bench plan` would")
    args = parser.parse_args()
    values: dict[str, Any] = {
        "backbone": "stable-diffusion", "base_sha256": "0", "data_sha256": "0",
        "objective": {"name": "dpo"}, "reference": {"name": "frozen"},
        "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
        "optimizer": {"lr": 1e-5}, "steps": 1000, "batch_size": 1, "seed": 0,
    }  # fmt: skip
    changes = {key: yaml.safe_load(text) for key, _, text in (s.partition("=") for s in args.set)}
    config = TrainConfig.model_validate(values | changes)
    plan = training_memory(config, count(MODEL.network, lambda: MODEL.inputs(MODEL.side)))
    tell({
        "changes": changes,
        "plan_gib": {part: round(size, 2) for part, size in plan.items() if size}
        | {"sum": round(sum(plan.values()), 2)},
    })  # fmt: skip
    if args.plan:
        return
    libraries = resident("VmRSS")
    give_up_above(args.limit)
    latents = torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(0))
    image = Moments(latents, torch.zeros_like(latents))
    trainer = Trainer(config, Random(), Repeated(1, image, {"text": torch.zeros(1, 77, 768)}))
    tell({
        "network": parameters(config.weights.network(trainer.init)),
        "trained": parameters(trainer.policy),
        "libraries_gib": libraries,
        "before_steps_gib": resident("VmRSS"),
    })  # fmt: skip
    for _ in range(args.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        metrics = trainer.advance()
        tell({
            "step": metrics.step, "loss": metrics.loss,
            "cpu_s": round(time.process_time() - cpu, 1),
            "wall_s": round(time.perf_counter() - wall, 1),
            "peak_gib": resident("VmHWM"), "after_gib": resident("VmRSS"),
        })  # fmt: skip


if __name__ == "__main__":
    main()
