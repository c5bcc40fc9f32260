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
from torch import Tensor, nn

from bench.estimate.architectures import SD15
from bench.estimate.network import count, denoiser, network_cost
from bench.estimate.training import training_memory, training_of
from trainers.backbones import Condition, Moments
from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.base import PairData


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
        network = denoiser(SD15).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            with torch.no_grad():
                spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.02
                parameter.uniform_(-spread, spread, generator=generator)
        return network


class MadeUp(PairData):
    """One pair."""

    latent_shape = (4, 64, 64)

    def __len__(self) -> int:
        return 1

    def images(self, rows: Tensor) -> tuple[Moments, Moments]:
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn((2, len(rows), *self.latent_shape), generator=generator)
        return Moments(a, torch.zeros_like(a)), Moments(b, torch.zeros_like(b))

    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        return {"text": torch.zeros(len(rows), 77, 768)}

    def preference(self, rows: Tensor) -> Tensor:
        return torch.ones(len(rows), dtype=torch.float64)


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
    plan = training_memory(training_of(config), network_cost(SD15, MadeUp.latent_shape[-1]))
    tell({
        "changes": changes,
        "plan_gib": {part: round(size, 2) for part, size in plan.items() if size}
        | {"sum": round(sum(plan.values()), 2)},
    })  # fmt: skip
    if args.plan:
        return
    libraries = resident("VmRSS")
    give_up_above(args.limit)
    trainer = Trainer(config, Random(), MadeUp())
    tell({
        "network": count(config.weights.network(trainer.init)),
        "trained": count(trainer.policy),
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
