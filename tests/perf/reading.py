"""How long input takes to read: 20,000 prompts in every kind of file, and images to decode.

    python tests/perf/reading.py [--prompts 20000] [--images 40]

Times are CPU seconds, the least of several. Images are compared with what Pillow alone does: open,
turn upright, convert to RGB. pytest does not collect this file; it asserts no times.
"""

import argparse
import csv
import io
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from bench.spec.prompts import load_prompts
from trainers.input.image import open_rgb

REPEATS = 5


def best(*works: Callable[[], object]) -> list[float]:
    """CPU seconds of the fastest of some calls of each, which take turns."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, found in zip(works, times, strict=True):
            began = time.process_time()
            work()
            found.append(time.process_time() - began)
    return [min(found) for found in times]


def write_prompts(folder: Path, count: int) -> list[Path]:
    """The same prompts as each kind of file."""
    texts = [f"a picture of {n} things, said in the words of number {n}" for n in range(count)]
    rows = [{"id": n, "prompt": text} for n, text in enumerate(texts)]
    paths = [folder / f"{name}.{kind}" for name, kind in (
        ("ids", "jsonl"), ("plain", "jsonl"), ("list", "json"), ("table", "csv"), ("lines", "txt"),
        ("table", "parquet"),
    )]  # fmt: skip
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths[1].write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    paths[2].write_text(json.dumps(texts))
    with paths[3].open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "prompt"], *([n, t] for n, t in enumerate(texts))])
    paths[4].write_text("\n".join(texts))
    pq.write_table(pa.table({"prompt": texts}), paths[5])
    return paths


def encoded(side: int, kind: str) -> bytes:
    """A picture with smooth parts and noise."""
    rng = np.random.default_rng(side)
    ramp = np.linspace(0, 200, side)[:, None, None] + rng.integers(0, 40, (side, side, 3))
    stream = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(stream, kind)
    return stream.getvalue()


def plain(data: bytes) -> Image.Image:
    """What Pillow does alone."""
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def decode(work: Callable[[bytes], Image.Image], many: list[bytes]) -> None:
    """Decode images one after the other."""
    for data in many:
        work(data)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"| {given.prompts} prompts | s |\n|---|---|")
        for path in write_prompts(Path(folder), given.prompts):
            (seconds,) = best(partial(load_prompts, str(path)))
            print(f"| {path.name} | {seconds:.3f} |")
    print("\n| image | ms, Pillow alone | ms, open_rgb | ratio |\n|---|---|---|---|")
    for kind in ("JPEG", "PNG", "WEBP"):
        for side in (64, 512, 1024):
            many = [encoded(side, kind)] * given.images
            times = best(*(partial(decode, work, many) for work in (plain, open_rgb)))
            alone, ours = (1000 * seconds / len(many) for seconds in times)
            print(f"| {kind} {side} | {alone:.3f} | {ours:.3f} | {ours / alone:.2f} |")


if __name__ == "__main__":
    main()
