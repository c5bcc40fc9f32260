"""How long all five rewards take, by the published implementations and by ours; see README.md.

    python tests/perf/bench_rewards.py --size full --official ~/.cache/dpo-bench/official/bin/python

Prints markdown. Every measurement is a process of its own with one thread, on random weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainers.machine.precision import BYTES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REWARDS = ("pickscore", "hpsv2.1", "imagereward", "clip", "aesthetic")
BATCHES = (1, 4, 16)
IMAGES = 160
"""Images that are made: every measurement takes some that its process has not seen."""
SIDE = 512
Costs = Mapping[str, Any]


def main() -> None:
    """Measure everything, then print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--official", help="Python of the environment of the published packages")
    parser.add_argument("--work", type=Path, help="folder for weights, kept; default: temporary")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--out", type=Path, help="file for what was measured, as JSON")
    parser.add_argument("--count", type=int, default=4, help="images of one measurement")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of one measurement")
    parser.add_argument("--dtype", help="measure all five in this precision too, e.g. bfloat16")
    parser.add_argument("--batch-rewards", nargs="*", default=REWARDS, choices=REWARDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = given.work or Path(temporary)
        folders = write_weights(work, given.size)
        write_inputs(work / "inputs")
        published, ours = {}, {}
        for name in REWARDS:  # Side by side, so that what else the machine does is alike.
            published[name] = measure_published(given, name, folders, work)
            ours[name] = measure_ours(given, [name], folders, work)
        ours["clip + aesthetic"] = measure_ours(given, ["clip", "aesthetic"], folders, work)
        ours["all five"] = measure_ours(given, REWARDS, folders, work)
        if given.dtype:
            ours[given.dtype] = measure_ours(given, REWARDS, folders, work, "--dtype", given.dtype)
    if given.out:
        given.out.write_text(json.dumps({"published": published, "ours": ours}, indent=1))
    for part in report(given, published, ours):
        print(part, end="\n\n")


def write_weights(work: Path, size: str) -> dict[str, str]:
    """Folder of the weights by reward. CLIP and Aesthetic have one model, as published."""
    folders = {name: work / size / name.replace("clip", "aesthetic") for name in REWARDS}
    small = ["--small"] if size == "small" else []
    for name, folder in folders.items():
        if name != "clip" and not (folder / "done").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            writer = [str(ROOT / "tests/parity/full.py"), "--write", name, "--folder", str(folder)]
            run(sys.executable, [*writer, *small], work)
            (folder / "done").touch()
    return {name: str(folder) for name, folder in folders.items()}


def write_inputs(folder: Path) -> None:
    """Pictures of smooth noise, and prompts of about 15 words."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(IMAGES):
        rng = np.random.default_rng(n)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{n:03}.png")
    prompts = [
        f"a photo of {n} red cups and a dog on a wooden table in the morning light"
        for n in range(IMAGES)
    ]
    (folder / "prompts.json").write_text(json.dumps(prompts))


def measure_published(
    given: argparse.Namespace, name: str, folders: Mapping[str, str], work: Path
) -> dict[str, Any]:
    """Seconds of a call with one image, and of each further image of a call."""
    common = inputs(given, work)
    if given.official:
        script = [str(HERE / "published.py"), "--reward", name, "--folder", folders[name]]
        return run(given.official, [*script, *common], work, own=False)
    asked = json.dumps({name: folders[name]})
    script = [str(HERE / "ours.py"), "--one-at-a-time", "--folders", asked]
    return run(sys.executable, [*script, *common], work)


def measure_ours(
    given: argparse.Namespace,
    names: Iterable[str],
    folders: Mapping[str, str],
    work: Path,
    *options: str,
) -> dict[str, Any]:
    """Seconds for each image, prompt and pair, of rewards that share what they can."""
    names = list(names)
    asked = json.dumps({name: folders[name] for name in names})
    script = [str(HERE / "ours.py"), "--folders", asked, *options]
    if len(names) == 1 and names[0] in given.batch_rewards:
        script += ["--batches", *map(str, BATCHES)]
    return run(sys.executable, [*script, *inputs(given, work)], work)


def inputs(given: argparse.Namespace, work: Path) -> list[str]:
    """Options that all scripts have."""
    numbers = ["--count", str(given.count), "--budget", str(given.budget)]
    return ["--inputs", str(work / "inputs"), *numbers]


def run(python: str, arguments: list[str], work: Path, own: bool = True) -> dict[str, Any]:
    """What a script prints last, as JSON; it says on standard error what it is doing."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"DPO_BENCH_HOME": str(work / "home")}
    if own:
        environment["PYTHONPATH"] = str(ROOT)
    print(" ".join(arguments)[:160], file=sys.stderr, flush=True)
    done = subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {json.dumps(result)}", file=sys.stderr, flush=True)
    return result


def published_total(name: str, cost: Costs, images: int, prompts: int, paired: bool) -> float:
    """Seconds of a whole job: a call for each prompt, or for each pair; images alone need one."""
    if paired and name != "aesthetic":
        return images * float(cost["call"])
    calls = 1 if name == "aesthetic" else prompts
    return calls * float(cost["call"] + (images - 1) * cost["further"])


def our_total(cost: Costs, images: int, prompts: int, paired: bool) -> float:
    """Seconds of a whole job."""
    prompts, pairs = (images, images) if paired else (prompts, images * prompts)
    return float(images * cost["image"] + prompts * cost["prompt"] + pairs * cost["pair"])


def report(
    given: argparse.Namespace, published: Mapping[str, Costs], ours: Mapping[str, Costs]
) -> list[str]:
    """The tables, with what they were computed from."""
    by = "the published packages" if given.official else "our classes, one call at a time"
    said = (
        f"{given.size.capitalize()} models, one thread, CPU seconds. Published: {by}. Totals are "
        f"extrapolated linearly from {given.count} images: whole jobs were not run."
    )
    return [
        said,
        f"{given.images} images x {given.prompts} prompts, all pairs:",
        totals(published, ours, given.images, given.prompts, paired=False),
        f"{given.images} images, each with a prompt of its own:",
        totals(published, ours, given.images, given.prompts, paired=True),
        table(
            ("published", "call with one image", "each further image", "rounds", "peak GB"),
            [
                (n, *(f"{c[k]:.4f}" for k in ("call", "further")), c.get("rounds", 1), gigabytes(c))
                for n, c in published.items()
            ],
        ),
        table(
            ("ours", "new image", "new prompt", "pair", "sets", "peak GB"),
            [
                (n, *(f"{c[k]:.4f}" for k in ("image", "prompt", "pair")), c["sets"], gigabytes(c))
                for n, c in ours.items()
            ],
        ),
        table(
            ("s per image by batch size", *map(str, BATCHES)),
            [
                (n, *(f"{c['batches'][str(size)]:.4f}" for size in BATCHES))
                for n, c in ours.items()
                if c["batches"]
            ],
        ),
    ]


def totals(
    published: Mapping[str, Costs],
    ours: Mapping[str, Costs],
    images: int,
    prompts: int,
    paired: bool,
) -> str:
    """Seconds of a whole job on both sides."""
    theirs = {n: published_total(n, c, images, prompts, paired) for n, c in published.items()}
    mine = {name: our_total(cost, images, prompts, paired) for name, cost in ours.items()}
    two, five = theirs["clip"] + theirs["aesthetic"], sum(theirs.values())
    rows = [(name, theirs[name], mine[name]) for name in REWARDS]
    rows += [
        ("clip and aesthetic, apart", two, mine["clip"] + mine["aesthetic"]),
        ("clip and aesthetic, together", two, mine["clip + aesthetic"]),
        ("all five, apart", five, sum(mine[name] for name in REWARDS)),
        ("all five, together", five, mine["all five"]),
    ]
    rows += [(f"all five, together, {name}", five, mine[name]) for name in BYTES if name in mine]
    return table(
        ("reward", "published s", "ours s", "published / ours"),
        [(name, f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}") for name, a, b in rows],
    )


def gigabytes(cost: Costs) -> str:
    """Peak of resident memory."""
    return f"{cost['bytes'] / 1e9:.2f}"


def table(header: tuple[object, ...], rows: list[tuple[object, ...]]) -> str:
    """Markdown."""
    rule = ("---",) * len(header)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, rule, *rows))


if __name__ == "__main__":
    main()
