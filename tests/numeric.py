"""Run the tests of numbers under other instructions, other kernels and other numbers of threads.

    python tests/numeric.py                                 every combination, one after the other
    python tests/numeric.py --only default-SSE41-1 avx2-any-2

A combination is named by what torch's own kernels may use (``ATEN_CPU_CAPABILITY``), what
oneDNN's may (``ONEDNN_MAX_CPU_ISA``; ``any`` leaves it alone), and the number of threads. So one
processor stands in for older ones: sums come in another order, and fused multiply-adds are used or
not. Prints one line for each, with the tests that failed below it; the exit status is 1 if any did.
"""

import argparse
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import torch

CAPABILITIES = ("default", "avx2", "avx512")
"""From the least to the most; torch believes the variable even if the processor cannot do it."""
KERNELS = ("SSE41", "any")
THREADS = ("1", "2", "4")


def capabilities() -> tuple[str, ...]:
    """What this processor can do of them; torch is imported without the variable (see below)."""
    best = torch.backends.cpu.get_cpu_capability().lower()
    return CAPABILITIES[: CAPABILITIES.index(best) + 1] if best in CAPABILITIES else ("default",)


def environment(capability: str, kernels: str, threads: str) -> dict[str, str]:
    """The settings of one combination, in a copy of the environment."""
    settings = {
        "ATEN_CPU_CAPABILITY": capability,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "MKL_DYNAMIC": "FALSE",  # else MKL takes no more threads than there are cores
        "OMP_WAIT_POLICY": "PASSIVE",  # more threads than cores are not to spin
    }
    if kernels != "any":
        settings["ONEDNN_MAX_CPU_ISA"] = kernels
    return {k: v for k, v in os.environ.items() if k != "ONEDNN_MAX_CPU_ISA"} | settings


def run(name: str) -> bool:
    """Run the tests under one combination and print what came of it."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "numeric", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).resolve().parents[1],
        env=environment(*name.split("-")),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    passed = done.returncode == 0
    lines = done.stdout.splitlines() or [done.stderr]
    print(f"{name:16} {'passed' if passed else 'FAILED'} {seconds:5.0f} s  {lines[-1]}")
    for line in lines if not passed else ():
        if line.startswith(("FAILED", "ERROR", "E  ")):
            print(f"    {line}")
    sys.stdout.flush()
    return passed


def main() -> int:
    """Run what was asked for; the exit status says whether all passed."""
    names = ["-".join(parts) for parts in product(capabilities(), KERNELS, THREADS)]
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    return int(not all([run(name) for name in parser.parse_args().only]))


if __name__ == "__main__":
    os.environ.pop("ATEN_CPU_CAPABILITY", None)
    sys.exit(main())
