"""Where the processor time of a training step goes, by kind of kernel and by part of the step.

    python tests/perf/profile_step.py [--variant ours] [--steps 3] [--pairs 2]

The model is that of bench_train.py.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import our_step
import public_step
import small_sd

KINDS = {
    "attention": ("scaled_dot_product",),
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "normalisation, activations": ("norm_backward", "layer_norm", "group_norm", "silu", "gelu"),
}
"""Kernels by what their names contain; all others are "other"."""
STEPS = {"AdamW": "Optimizer.step#AdamW.step", "norm of the gradients": "aten::linalg_vector_norm"}


def profile(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Shares of the time in kernels; those of the optimiser overlap the others."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    with watch(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            step()
    events = seen.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    shares = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in events:
        kind = next(
            (k for k, names in KINDS.items() if any(n in event.key for n in names)), "other"
        )
        shares[kind] += event.self_cpu_time_total / total
    for name, key in STEPS.items():
        shares[f"of all: {name}"] = sum(e.cpu_time_total for e in events if e.key == key) / total
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="ours")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small_sd.build(Path(folder))
        make = our_step.our_step if args.variant in our_step.VARIANTS else public_step.public_step
        step = make(args.variant, Path(folder), args.pairs)
        step()
        for name, share in profile(step, args.steps).items():
            print(f"{name:36}{share:7.1%}")


if __name__ == "__main__":
    main()
