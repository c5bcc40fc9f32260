"""Our side of bench_rewards.py: what an image, a prompt and a pair cost ``score_items``.

With ``--one-at-a-time`` it does instead what the published code does, by our classes: nothing is
kept, and every call makes all its forward passes.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.images.read import Item
from bench.rewards import REWARDS
from bench.rewards.base import Reward
from bench.rewards.engine import score_items
from bench.rewards.kit.shared import Shared
from trainers.files import sha256_file

PROMPTS = 4
"""Prompts of a measurement, after one that warms up."""


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process: with one thread, its wall time if nothing else ran."""
    start = time.process_time()
    work()
    return time.process_time() - start


def score(rewards: dict[str, Reward], images: Sequence[Path], prompts: Sequence[str]) -> float:
    """CPU seconds of a job with all pairs."""
    items = [
        Item(prompt, 0, path.name, sha256_file(path), path.read_bytes)
        for path in images
        for prompt in prompts
    ]
    with tempfile.TemporaryDirectory() as folder:
        jobs: list[Any] = []
        out = Path(folder) / "scores.parquet"
        took = seconds(lambda: jobs.append(score_items(items, rewards, out)))
    for error in jobs[0].failed.values():
        raise error
    return took


def costs(
    rewards: dict[str, Reward], images: Sequence[Path], prompts: Sequence[str]
) -> dict[str, float]:
    """Seconds for each new image, each new prompt and each pair.

    What is kept from one job to the next tells them apart: a first job sees images and one prompt,
    the second nothing new, the third new prompts, the fourth nothing new with more pairs.
    """
    new_images = score(rewards, images, prompts[:1])
    nothing = score(rewards, images, prompts[:1])
    new_prompts = score(rewards, images, prompts)
    pairs = score(rewards, images, prompts)
    more = len(prompts) - 1
    prompt = max(0.0, new_prompts - pairs) / more
    pair = max(0.0, pairs - nothing) / (more * len(images))
    image = (new_images - prompt) / len(images) - pair
    return {"image": image, "prompt": prompt, "pair": pair}


def measure(given: argparse.Namespace, rewards: dict[str, Reward]) -> dict[str, Any]:
    """Medians of :func:`costs` over as many sets of images as the budget allows."""
    images = sorted(given.inputs.glob("*.png"))
    prompts: list[str] = json.loads((given.inputs / "prompts.json").read_text())
    score(rewards, images[-1:], prompts[-1:])
    found = []
    deadline = time.monotonic() + given.budget
    for n in range(min(len(images) // given.count, len(prompts) // PROMPTS)):
        some = images[n * given.count : (n + 1) * given.count]
        found.append(costs(rewards, some, prompts[n * PROMPTS : (n + 1) * PROMPTS]))
        if time.monotonic() > deadline:
            break
    result: dict[str, Any] = {key: median(cost[key] for cost in found) for key in found[0]}
    return result | {"sets": len(found)}


def batches(given: argparse.Namespace, rewards: dict[str, Reward]) -> dict[int, float]:
    """Seconds for an image by batch size."""
    images = sorted(given.inputs.glob("*.png"))
    found: dict[int, float] = {}
    for n, size in enumerate(given.batches):
        for reward in rewards.values():
            reward.batch_size = size
        # From the end, where no measurement has been, and each size its own.
        some = images[len(images) - (n + 1) * 16 : len(images) - n * 16]
        found[size] = score(rewards, some, ["a cup"]) / len(some)
    return found


def one_at_a_time(given: argparse.Namespace, reward: Reward) -> dict[str, float]:
    """Seconds of a call with one image, and with each further one, as in published.py."""
    from PIL import Image

    images = sorted(given.inputs.glob("*.png"))[: given.count]
    prompt = "a photo of a cup"
    lists = reward.card.name == "pickscore"
    reward.shared = Shared(kept=0)
    reward.load()

    def call(paths: Sequence[Path]) -> None:
        opened = [Image.open(path) for path in paths]
        if lists:
            reward.batch_size = len(opened)
            reward.score(opened, [prompt] * len(opened))
        else:
            for image in opened:
                reward.score([image], [prompt])

    call(images[:1])
    one = seconds(lambda: call(images[:1]))
    every = seconds(lambda: call(images))
    return {"call": one, "further": max(0.0, every - one) / (len(images) - 1)}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=json.loads, help="folder of the weights by reward")
    parser.add_argument("--inputs", type=Path, help="folder of images and prompts.json")
    parser.add_argument("--count", type=int, help="images of a measurement")
    parser.add_argument("--budget", type=float, help="seconds after which no set is begun")
    parser.add_argument("--batches", type=int, nargs="*", default=[])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--one-at-a-time", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shared = Shared()
    rewards: dict[str, Reward] = {
        name: REWARDS.get(name)(weights=folder, dtype=given.dtype, shared=shared)
        for name, folder in given.folders.items()
    }
    if given.one_at_a_time:
        [reward] = rewards.values()
        result: dict[str, Any] = one_at_a_time(given, reward)
    else:
        for reward in rewards.values():
            reward.load()
        result = measure(given, rewards)
        result["batches"] = batches(given, rewards)
    result["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
