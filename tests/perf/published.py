"""The published side of bench_rewards.py, run by the Python of the published packages.

One call scores a list of images for one prompt, as each implementation is used: hpsv2's
``img_score.score`` and image-reward's ``ImageReward.score`` with a list, which both take one image
at a time; PickScore's snippet, which sees the list in one batch; OpenAI's package with the prompt
read once and one image at a time, which is how image-reward ranks by CLIP; the aesthetic head
likewise, without a prompt. The implementations are those of tests/parity/official.py.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))

Call = Callable[[list[str], str], object]


def make_call(name: str, folder: Path) -> Call:
    """Load an implementation; from paths of images and a prompt to scores."""
    from official import HPS, MAKERS, load_worker
    from PIL import Image

    if name.startswith("hpsv2"):
        MAKERS[name](folder)
        from hpsv2 import img_score

        return lambda paths, prompt: img_score.score(paths, prompt, cp=str(folder / HPS[name]))
    if name == "imagereward":
        names = ("ImageReward.pt", "med_config.json", "tokenizer.json")
        files = {name: str(folder / name) for name in names}
        model = load_worker().ImageReward(name, files, "cpu").model
        return lambda paths, prompt: model.score(prompt, paths)
    made = MAKERS[name](folder)
    if name == "pickscore":
        return lambda paths, prompt: made.score([Image.open(path) for path in paths], prompt)
    if name == "aesthetic":
        return lambda paths, prompt: [made.score(Image.open(path), prompt) for path in paths]

    def clip(paths: list[str], prompt: str) -> object:
        return made.text(prompt), [made.image(Image.open(path)) for path in paths]

    return clip


def main() -> None:
    """Measure CPU seconds of a call with one image and with each further one; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reward")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--inputs", type=Path, help="folder of images and prompts.json")
    parser.add_argument("--count", type=int, help="images of a call")
    parser.add_argument("--budget", type=float, help="seconds after which no round is begun")
    given = parser.parse_args()
    # Packages print: standard output is for the answer alone.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from official import load_worker

    load_worker().check()
    import torch

    torch.set_num_threads(1)
    call = make_call(given.reward, given.folder)
    images = sorted(str(path) for path in given.inputs.glob("*.png"))[: given.count]
    prompts = json.loads((given.inputs / "prompts.json").read_text())

    def seconds(paths: list[str], prompt: str) -> float:
        start = time.process_time()
        call(paths, prompt)
        return time.process_time() - start

    ones, lists = [], []
    with torch.no_grad():
        call(images[:1], prompts[-1])
        deadline = time.monotonic() + given.budget
        for prompt in prompts:
            ones.append(seconds(images[:1], prompt))
            lists.append(seconds(images, prompt))
            if time.monotonic() > deadline:
                break
    one, many = sorted(ones)[len(ones) // 2], sorted(lists)[len(lists) // 2]
    result = {
        "call": one,
        "further": max(0.0, many - one) / (len(images) - 1),
        "rounds": len(ones),
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    answer.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
