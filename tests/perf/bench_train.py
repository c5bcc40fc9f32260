"""Time and memory of a training step, against the step of the public scripts and with savings.

    python tests/perf/bench_train.py [--rounds 5] [--steps 3] [--pairs 2] [--threads 1] [--json OUT]

Every variant runs in processes of its own, which take turns, so that a busy machine is busy for all
of them alike. Encodings were written by a process before them. Times are processor seconds: on a
shared machine wall time measures the others.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import our_step
import public_step
import small_sd

VARIANTS = public_step.VARIANTS | {name: said for name, (said, _) in our_step.VARIANTS.items()}


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


def resident(key: str) -> float:
    """GiB of this process that are in memory, ``VmRSS``, or were at the peak, ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 2**20


def import_everything() -> None:
    """Import what any variant imports, so that their libraries take the same memory."""
    import diffusers
    import peft
    import transformers.optimization

    import trainers.core
    import trainers.data.encode  # noqa: F401

    for name in ("AutoencoderKL", "StableDiffusionPipeline", "UNet2DConditionModel"):
        getattr(diffusers, name)
    transformers.CLIPTextModel, transformers.CLIPTokenizer, peft.LoraConfig  # noqa: B018


def work(variant: str, folder: Path, steps: int, pairs: int, threads: int) -> dict[str, float]:
    """Measure one variant in this process."""
    import torch

    torch.set_num_threads(threads)
    import_everything()
    libraries = resident("VmRSS")
    ours = variant in our_step.VARIANTS
    step = (our_step.our_step if ours else public_step.public_step)(variant, folder, pairs)
    step()  # AdamW's state, oneDNN's plans
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "cpu_s": cpu / steps,
        "wall_s": wall / steps,
        "peak_gib": resident("VmHWM"),
        "own_gib": resident("VmHWM") - libraries,
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
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker == "build":
        small_sd.build(args.folder)
    elif args.worker:
        print(json.dumps(work(args.worker, args.folder, args.steps, args.pairs, args.threads)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            runs = measure(args, folder)
        median = {name: _median(several) for name, several in runs.items()}
        if args.json:
            args.json.write_text(json.dumps({"runs": runs, "median": median}, indent=1) + "\n")
        report(median, args)


def measure(args: argparse.Namespace, folder: str) -> dict[str, list[dict[str, float]]]:
    """Measurements by variant, one for each process."""
    passed = [f"--{key}={getattr(args, key)}" for key in ("steps", "pairs", "threads")]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(args.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TRANSFORMERS_VERBOSITY": "error",
    }

    def process(worker: str) -> str:
        command = [sys.executable, __file__, "--worker", worker, "--folder", folder, *passed]
        return subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    process("build")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.variants.split(",")}
    for _ in range(args.rounds):
        for name, several in runs.items():
            several.append(json.loads(process(name).splitlines()[-1]))
    return runs


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def report(median: dict[str, dict[str, float]], args: argparse.Namespace) -> None:
    """Print medians, and ratios to the first variant."""
    import torch

    base = next(iter(median.values()))
    print(
        f"{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s), "
        f"{args.pairs} pairs a step, median of {args.rounds} processes x {args.steps} steps"
    )
    print(f"{'variant':21}{'cpu s/step':>11}{'ratio':>7}{'peak GiB':>10}{'its own':>9}{'ratio':>7}"
          f"{'GFLOP':>7}{'of matmul peak':>16}")  # fmt: skip
    for name, m in median.items():
        share = m["gflop"] / m["cpu_s"] / m["peak_gflops"]
        print(f"{name:21}{m['cpu_s']:11.3f}{m['cpu_s'] / base['cpu_s']:7.2f}{m['peak_gib']:10.2f}"
              f"{m['own_gib']:9.2f}{m['own_gib'] / base['own_gib']:7.2f}"
              f"{m['gflop']:7.0f}{share:16.0%}")  # fmt: skip
    for name in median:
        print(f"  {name}: {VARIANTS[name]}")


if __name__ == "__main__":
    main()
