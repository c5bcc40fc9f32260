"""Steps of Stable Diffusion 1.5 at full size: random weights, made-up latents, 1 pair.

    python tests/perf/full_size.py [--steps 1] [--set weights='{name: lora, rank: 8}'] ...

Any key of a training configuration can be set, with YAML as its value. LoRA without gradient
checkpointing takes some 8 GiB, all weights more than 20.
"""

import argparse
import json
import resource
import time
from typing import Any

import torch
import yaml
from diffusers import DDPMScheduler
from torch import Tensor, nn

from bench.architectures import SD15
from bench.measure import denoiser
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=YAML")
    args = parser.parse_args()
    values: dict[str, Any] = {
        "backbone": "stable-diffusion", "base_sha256": "0", "data_sha256": "0",
        "objective": {"name": "dpo"}, "reference": {"name": "frozen"},
        "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
        "optimizer": {"lr": 1e-5}, "steps": 1000, "batch_size": 1, "seed": 0,
    }  # fmt: skip
    changes = {key: yaml.safe_load(text) for key, _, text in (s.partition("=") for s in args.set)}
    trainer = Trainer(TrainConfig.model_validate(values | changes), Random(), MadeUp())
    print(json.dumps({
        "changes": changes,
        "trained": sum(p.numel() for p in trainer.policy.parameters()),
        "network": sum(p.numel() for p in denoiser(SD15).parameters()),
    }), flush=True)  # fmt: skip
    for _ in range(args.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        metrics = trainer.advance()
        print(json.dumps({
            "step": metrics.step, "loss": metrics.loss,
            "cpu_s": round(time.process_time() - cpu, 1),
            "wall_s": round(time.perf_counter() - wall, 1),
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
