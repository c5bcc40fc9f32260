"""Our rewards against the published implementations at full size, with random weights.

    python tests/parity/full.py --official ~/.cache/dpo-bench/official/bin/python --work FOLDER

One reward at a time: writes its weights below FOLDER (up to 8 GB, removed afterwards), lets the
published code score four images in its environment and ours in this one, each in a process of its
own with one thread, and prints a markdown table, which it also writes as JSON. Needs about 10 GB of
memory. With ``--small`` it does the same on small models.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAIRS = [
    ["square", "plain"],
    ["wide", "middling"],
    ["tall-odd", "numbers"],
    ["small", "upper"],
]
COLUMNS = (
    "reward | parameters | published scores | max abs diff | published s | ours s | "
    "published GB | ours GB"
)


def score_ours(name: str, folder: Path) -> dict[str, Any]:
    """Scores of :data:`PAIRS` by our reward, one image at a time as the published code does."""
    import torch
    from cases import PROMPTS, images, plain
    from official import peak

    from bench.rewards import REWARDS

    torch.set_num_threads(1)
    stored = images()
    reward = REWARDS.get(name)(weights=folder)
    reward.load()
    start = time.perf_counter()
    scores = [float(reward.score([plain(stored[i])], [PROMPTS[p]])[0]) for i, p in PAIRS]
    return {"scores": scores, "seconds": time.perf_counter() - start, "bytes": peak()}


def run(python: str, arguments: list[str], home: Path, path: str | None) -> dict[str, Any]:
    """What a script prints last, as JSON; with one thread, and ``path`` alone as PYTHONPATH."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DPO_BENCH_HOME": str(home)}
    if path:
        own["PYTHONPATH"] = path
    done = subprocess.run(
        [python, *arguments], env=clean | own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(name: str, official: str, work: Path, small: bool) -> dict[str, Any]:
    """One row of the table; everything written is removed."""
    root = str(HERE.parents[1])
    with tempfile.TemporaryDirectory(dir=work) as place:
        folder = Path(place)
        # In a process of its own: the memory of a model that is made stays with the process.
        made = [str(HERE / "full.py"), "--write", name, "--folder", place]
        parameters = run(sys.executable, [*made, "--small"] if small else made, folder, root)
        theirs_of = ["--reward", name, "--folder", place, "--pairs", json.dumps(PAIRS)]
        theirs = run(official, [str(HERE / "official.py"), *theirs_of], folder, None)
        ours_of = [str(HERE / "full.py"), "--ours", name, "--folder", place]
        ours = run(sys.executable, ours_of, folder, root)
    pairs = zip(ours["scores"], theirs["scores"], strict=True)
    return {
        "reward": name,
        "parameters": parameters["parameters"],
        "published": theirs,
        "ours": ours,
        "difference": max(abs(a - b) for a, b in pairs),
    }


def line(row: dict[str, Any]) -> str:
    """A row as markdown."""
    theirs, ours = row["published"], row["ours"]
    cells = (
        row["reward"],
        f"{row['parameters']:,}",
        f"{min(theirs['scores']):.4f} to {max(theirs['scores']):.4f}",
        f"{row['difference']:.1e}",
        *(f"{side['seconds']:.1f}" for side in (theirs, ours)),
        *(f"{side['bytes'] / 1e9:.1f}" for side in (theirs, ours)),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Command line; ``--write`` and ``--ours`` are for its own processes."""
    from checkpoints import NAMES, write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", help="Python of the environment of the published packages")
    parser.add_argument("--work", type=Path, help="folder for the weights while they are compared")
    parser.add_argument("--out", type=Path, help="file for the table as JSON")
    parser.add_argument("--rewards", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--small", action="store_true", help="small models")
    parser.add_argument("--write", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--ours", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        count = write(given.write, given.folder, full=not given.small)
        print(json.dumps({"parameters": count}))
    elif given.ours:
        print(json.dumps(score_ours(given.ours, given.folder)))
    elif not (given.official and given.work):
        parser.error("--official and --work are needed")
    else:
        given.work.mkdir(parents=True, exist_ok=True)
        print(f"| {COLUMNS} |\n|{'---|' * (COLUMNS.count('|') + 1)}", flush=True)
        rows = []
        for name in given.rewards:
            rows.append(compare(name, given.official, given.work, given.small))
            print(line(rows[-1]), flush=True)
            if given.out:
                given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
