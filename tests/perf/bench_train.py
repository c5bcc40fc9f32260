"""Time and memory of a training step, against the step of the public scripts and without savings.

    python tests/perf/bench_train.py [--rounds 5] [--steps 3] [--pairs 2] [--threads 1] [--json OUT]

Every variant runs in processes of its own, which take turns, so that a busy machine is busy for all
of them alike. Times are processor seconds: on a shared machine wall time measures the others.

The model is Stable Diffusion 1.5 with its widths divided by ten, which leaves the costs of its
parts in proportion, at 256 pixels.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 256
LATENT = (4, SIDE // 8, SIDE // 8)
TOKENS, WORDS, WIDTH = 77, 1000, 80
PAIRS = 16
"""Size of the data set; a step takes --pairs of them."""

VARIANTS: dict[str, str] = {
    "public": "re-expression of the public step: encoders in the loop, four forwards",
    "public-joint": "the same, winners and losers in one forward (as Diffusion-DPO's own code)",
    "ours": "the trainer",
    "ours-encode": "the trainer, encoders in the loop",
    "ours-four": "the trainer, winners and losers in forwards of their own",
    "ours-copy": "the trainer, the frozen reference a network of its own",
    "ours-gate": "the trainer, hard-copy reference with its gate measured every second step",
}


def models() -> tuple[Any, Any, Any]:
    """UNet, autoencoder and text encoder with random weights, the last two frozen."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=LATENT[1],
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=32,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(12, 24, 48, 48),
        layers_per_block=2,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    del vae.decoder, vae.post_quant_conv  # Training only encodes.
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=WORDS,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=12,
            num_attention_heads=8,
            max_position_embeddings=TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    return unet, vae.eval().requires_grad_(False), text.eval().requires_grad_(False)


def inputs() -> tuple[Any, Any, Any]:
    """Pixels of winners and losers, ``[PAIRS, 3, SIDE, SIDE]``, and tokens ``[PAIRS, TOKENS]``."""
    import torch

    generator = torch.Generator().manual_seed(1)
    winner, loser = torch.rand((2, PAIRS, 3, SIDE, SIDE), generator=generator) * 2 - 1
    return winner, loser, torch.randint(WORDS, (PAIRS, TOKENS), generator=generator)


def public_step(joint: bool, pairs: int) -> Callable[[], None]:
    """Diffusion-DPO as the public scripts run it: all encoders in the loop, float32."""
    import copy

    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler

    unet, vae, text = models()
    reference = copy.deepcopy(unet).eval().requires_grad_(False)
    winner, loser, tokens = inputs()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5)
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    places = torch.arange(PAIRS)

    def errors(network: Any, noisy: Any, t: Any, states: Any, noise: Any) -> Any:
        chunks = [slice(None)] if joint else [slice(0, pairs), slice(pairs, None)]
        guess = torch.cat([network(noisy[c], t[c], states[c]).sample for c in chunks])
        return F.mse_loss(guess, noise, reduction="none").mean((1, 2, 3))

    def step() -> None:
        nonlocal places
        rows, places = places[:pairs], places.roll(-pairs)
        with torch.no_grad():
            pixels = torch.cat([winner[rows], loser[rows]])
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            states = text(tokens[rows]).last_hidden_state.repeat(2, 1, 1)
        noise = torch.randn_like(latents[:pairs]).repeat(2, 1, 1, 1)
        t = torch.randint(1000, (pairs,)).repeat(2)
        noisy = scheduler.add_noise(latents, noise, t)
        new_w, new_l = errors(unet, noisy, t, states, noise).chunk(2)
        with torch.no_grad():
            old_w, old_l = errors(reference, noisy, t, states, noise).chunk(2)
        logit = -2500.0 * ((new_w - new_l) - (old_w - old_l))
        (-F.logsigmoid(logit)).mean().backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(variant: str, pairs: int) -> Callable[[], None]:
    """``Trainer.advance`` on the same model and pixels, with one saving switched off."""
    import torch
    from diffusers import DDPMScheduler
    from torch import Tensor, nn

    from trainers.backbones import Condition, Moments
    from trainers.backbones.stable_diffusion import StableDiffusion
    from trainers.config import TrainConfig
    from trainers.core import Trainer
    from trainers.data.base import PairData

    unet, vae, text = models()
    winner, loser, tokens = inputs()

    class Backbone(StableDiffusion):
        def __init__(self) -> None:
            self.scheduler = DDPMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
            )
            kept = self.scheduler.alphas_cumprod.double()
            self.snr = kept / (1 - kept)

        def load_network(self) -> nn.Module:
            fresh = type(unet).from_config(unet.config)
            fresh.load_state_dict(unet.state_dict())
            return fresh

        def predict(self, network: nn.Module, noisy: Tensor, t: Tensor, told: Condition) -> Tensor:
            if variant != "ours-four":
                return super().predict(network, noisy, t, told)
            halves = zip(noisy.chunk(2), t.chunk(2), told["text"].chunk(2), strict=True)
            return torch.cat([super(Backbone, self).predict(network, x, u, {"text": c})
                              for x, u, c in halves])  # fmt: skip

    @torch.no_grad()
    def encode(pixels: Tensor) -> Moments:
        posterior = vae.encode(pixels).latent_dist
        scale = vae.config.scaling_factor
        return Moments(scale * posterior.mean, scale * posterior.std)

    @torch.no_grad()
    def states(ids: Tensor) -> Tensor:
        return text(ids).last_hidden_state

    class Live(PairData):
        """Encodes whenever it is asked."""

        @property
        def latent_shape(self) -> tuple[int, ...]:
            return LATENT

        def __len__(self) -> int:
            return PAIRS

        def images(self, rows: Tensor) -> tuple[Moments, Moments]:
            both = encode(torch.cat([winner[rows], loser[rows]]))
            n = len(rows)
            return Moments(both.mean[:n], both.std[:n]), Moments(both.mean[n:], both.std[n:])

        def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
            return {"text": states(tokens[rows])}

        def preference(self, rows: Tensor) -> Tensor:
            return torch.ones(len(rows), dtype=torch.float64)

    class Cached(Live):
        """Encodes once."""

        def __init__(self) -> None:
            parts = [super(Cached, self).images(torch.tensor([i])) for i in range(PAIRS)]
            self.sides = tuple(
                Moments(*(torch.cat([getattr(p[side], kind) for p in parts])
                          for kind in ("mean", "std")))
                for side in (0, 1)
            )  # fmt: skip
            self.told = states(tokens)

        def images(self, rows: Tensor) -> tuple[Moments, Moments]:
            first, second = (Moments(s.mean[rows], s.std[rows]) for s in self.sides)
            return first, second

        def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
            return {"text": self.told[rows]}

    data = Live() if variant == "ours-encode" else Cached()
    if isinstance(data, Cached):  # In a real run another process has encoded.
        del vae, text
        winner = loser = tokens = torch.empty(0)
    reference: dict[str, Any] = {
        "ours-copy": {"name": "hard-copy", "tau": 10**9},
        "ours-gate": {"name": "hard-copy", "tau": 2, "delta": 1e9},
    }.get(variant, {"name": "frozen"})
    config = TrainConfig.model_validate(
        {
            "backbone": "stable-diffusion", "base_sha256": "0", "data_sha256": "0",
            "objective": {"name": "dpo"}, "reference": reference,
            "timesteps": {"law": {"name": "uniform"}, "scale": {"name": "constant"}},
            "optimizer": {"lr": 1e-5}, "steps": 10**6, "batch_size": pairs, "seed": 0,
        }
    )  # fmt: skip
    trainer = Trainer(config, Backbone(), data)
    return lambda: (trainer.advance(), None)[1]


def flops(step: Callable[[], None]) -> int:
    """Multiplications and additions of a step, by torch's counter."""
    import torch
    from torch.utils.flop_counter import (
        FlopCounterMode,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    # The counter does not know the attention kernel of CPUs.
    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(grad, query, key, value))

    name = "_scaled_dot_product_flash_attention_for_cpu"
    mapping = {
        getattr(torch.ops.aten, name): forward,
        getattr(torch.ops.aten, f"{name}_backward"): backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step()
    return int(counter.get_total_flops())


def peak(seconds: float = 1.0) -> float:
    """Operations per processor second of large float32 matrix products: the best of several."""
    import torch

    n, best, start = 1024, 0.0, time.process_time()
    a, b = torch.randn((2, n, n))
    while time.process_time() - start < seconds:
        begin = time.process_time()
        a @ b
        best = max(best, 2 * n**3 / (time.process_time() - begin))
    return best


def work(variant: str, steps: int, pairs: int, threads: int) -> dict[str, float]:
    """Measure one variant in this process."""
    import torch

    torch.set_num_threads(threads)
    ours = variant.startswith("ours")
    step = our_step(variant, pairs) if ours else public_step(variant == "public-joint", pairs)
    step()  # AdamW's state, oneDNN's plans
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    return {
        "cpu_s": cpu / steps,
        "wall_s": wall / steps,
        "peak_gib": memory,
        "gflop": flops(step) / 1e9,
        "peak_gflops": peak() / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes per variant")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per process")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args.worker, args.steps, args.pairs, args.threads)))
        return
    names = args.variants.split(",")
    got: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    passed = [f"--{key}={getattr(args, key)}" for key in ("steps", "pairs", "threads")]
    for _ in range(args.rounds):
        for name in names:
            done = subprocess.run(
                [sys.executable, __file__, "--worker", name, *passed],
                env=environment, check=True, capture_output=True, text=True,
            )  # fmt: skip
            got[name].append(json.loads(done.stdout.splitlines()[-1]))
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in got.items()
    }
    if args.json:
        args.json.write_text(json.dumps({"runs": got, "median": median}, indent=1) + "\n")
    report(median, args)


def report(median: dict[str, dict[str, float]], args: argparse.Namespace) -> None:
    """Print medians, and ratios to the first variant."""
    import torch

    base = next(iter(median.values()))
    print(
        f"{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s), "
        f"{args.pairs} pairs a step, median of {args.rounds} processes x {args.steps} steps"
    )
    print(f"{'variant':14}{'cpu s/step':>11}{'ratio':>8}{'peak GiB':>10}{'ratio':>8}"
          f"{'GFLOP':>8}{'of matmul peak':>16}")  # fmt: skip
    for name, m in median.items():
        share = m["gflop"] / m["cpu_s"] / m["peak_gflops"]
        print(f"{name:14}{m['cpu_s']:11.3f}{m['cpu_s'] / base['cpu_s']:8.2f}{m['peak_gib']:10.2f}"
              f"{m['peak_gib'] / base['peak_gib']:8.2f}{m['gflop']:8.0f}{share:16.0%}")  # fmt: skip
    for name in median:
        print(f"  {name}: {VARIANTS[name]}")


if __name__ == "__main__":
    main()
