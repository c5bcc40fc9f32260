"""Writes what tests compare with: golden pictures and their scores, and the table in the docs.

    python tests/golden/regenerate.py

Run it after the weights of a miniature or a card have changed, and look at what else did.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bench.cli.catalogue import catalogue, markdown
from bench.rewards import REWARDS
from bench.world.scenes import draw_look, render, scenes
from trainers.seeds import numpy_generator

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
SCORES = HERE / "scores.json"
PAGE = HERE.parents[1] / "docs/rewards.md"
BEGIN, END = "<!-- bench list rewards --markdown -->", "<!-- end -->"


def shipped() -> list[str]:
    """Rewards that need no other weights than the shipped ones."""
    every = {name: REWARDS.get(name) for name in REWARDS.names()}
    own = {name: kind for name, kind in every.items() if kind.__module__.startswith("bench.")}
    return [name for name, kind in own.items() if kind.card.origin != "official"]


def read_pictures() -> tuple[list[Image.Image], list[str]]:
    """The golden pictures with their prompts, in order."""
    lines = (PICTURES / "prompts.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [Image.open(PICTURES / row["file"]) for row in rows], [row["prompt"] for row in rows]


def score(name: str) -> list[float]:
    """Scores of the golden pictures."""
    return [float(value) for value in REWARDS.get(name)().score(*read_pictures())]


def write_pictures() -> None:
    """Two clean pictures, four with faults of the world, one of them grainy, two mislabelled."""
    PICTURES.mkdir(exist_ok=True)
    rng = numpy_generator(0, "golden")
    told = scenes("test")[::30][:6]
    lines = []
    for n, scene in enumerate(told):
        pixels = render(scene) if n < 2 else render(scene, draw_look(rng, 1.0))
        if n == 2:
            grain = rng.normal(0, 12, pixels.shape)
            pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
        file = f"{n}.png"
        Image.fromarray(pixels).save(PICTURES / file)
        lines.append({"file": file, "prompt": scene.caption})
    lines += [{"file": f"{n}.png", "prompt": told[n + 1].caption} for n in (0, 3)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (PICTURES / "prompts.jsonl").write_text(text)


def split_page(page: str) -> tuple[str, str, str]:
    """What comes before the table of the docs, the table, and what follows."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside.strip(), after


def main() -> None:
    """Write everything."""
    write_pictures()
    scores = {name: score(name) for name in shipped()}
    rows = [f' "{name}": {json.dumps(values)}' for name, values in scores.items()]
    SCORES.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    before, _, after = split_page(PAGE.read_text())
    table = markdown(catalogue("rewards")["rewards"])
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
