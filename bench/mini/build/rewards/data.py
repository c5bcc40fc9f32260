"""What the miniature rewards learn from: pictures by the base model and worn drawings.

Both come in groups of four under one caption. No picture is labelled for good: annotators
describe, rate, compare and rank it anew each time it is drawn, see ``people``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from bench.mini.build.rewards.samples import GROUP
from bench.world import scenes as world
from bench.world.oracle import judge, read
from trainers.files import write_atomically
from trainers.input.tensors import read_tensors
from trainers.seeds import numpy_generator

Data = dict[str, Tensor]

SCENES = world.all_scenes()
INDEX = {scene: i for i, scene in enumerate(SCENES)}
DRAWN = 3_000
"""Groups of worn drawings in the training set."""
HELD_BACK = 24
"""One in so many groups of the base model's pictures is kept from training, to set a scale."""


def wear(pictures: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Warp, blur and stain pictures ``[n, 64, 64, 3]``, each by an amount of its own.

    The rewards will judge what a diffusion model and a decoder make, not clean renderings.
    """
    n = len(pictures)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    amount = torch.from_numpy(rng.random((4, n, 1, 1, 1), dtype=np.float32))

    def noise(channels: int, side: int) -> Tensor:
        draw = torch.from_numpy(rng.standard_normal((n, channels, side, side), dtype=np.float32))
        return F.interpolate(draw, world.SIDE, mode="bicubic")

    axis = (torch.arange(world.SIDE) + 0.5) / world.SIDE * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    shift = 0.025 * amount[0] * noise(2, 6)
    pixels = F.grid_sample(
        pixels, grid + shift.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.lerp(pixels, blurred, amount[1])
    pixels = pixels + 6 * amount[2] * noise(3, 8) + 5 * amount[3] * noise(3, world.SIDE)
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def wrong(scene: world.Scene, rng: np.random.Generator) -> world.Scene:
    """A scene that differs in one word, and lies in the training split if the first one does."""
    other = world.mislabel(scene, rng)
    while world.split_of(scene) == "train" != world.split_of(other):
        other = world.mislabel(scene, rng)
    return other


def draw_groups(
    split: str, count: int, size: int, wrong_share: float, rng: np.random.Generator
) -> Data:
    """Draw ``count`` captions, each with ``size`` worn pictures that may show something else.

    Returns ``told`` ``[n]`` and ``shown`` ``[n, size]``, the scenes of captions and pictures as
    indices into ``SCENES``; ``pictures`` ``uint8[n, size, 3, 64, 64]``; and what the oracle
    says of each, ``score`` and ``craft`` ``[n, size]``.
    """
    pool = world.scenes(split)
    told = [pool[i] for i in rng.integers(len(pool), size=count)]
    each = [scene for scene in told for _ in range(size)]
    shown = [wrong(scene, rng) if rng.random() < wrong_share else scene for scene in each]
    pictures = wear(np.stack([world.render(scene, world.draw_look(rng)) for scene in shown]), rng)
    return _judged(told, shown, torch.from_numpy(pictures).movedim(-1, 1))


def read_groups(pictures: Tensor) -> Data:
    """The same of sampled pictures ``uint8[n, size, 3, 64, 64]``, one group a training caption.

    ``shown`` is what the oracle reads, or the caption's scene where it finds no object.
    """
    told, size = world.scenes("train")[: len(pictures)], pictures.shape[1]
    views = pictures.flatten(0, 1).movedim(1, -1).numpy()
    seen = [read(view).scene for view in views]
    shown = [scene or told[i // size] for i, scene in enumerate(seen)]
    return _judged(told, shown, pictures.flatten(0, 1))


def _judged(
    told: tuple[world.Scene, ...] | list[world.Scene], shown: list[world.Scene], pictures: Tensor
) -> Data:
    """Groups of pictures ``[n * size, 3, 64, 64]`` with the oracle's judgements."""
    size = len(shown) // len(told)
    views = pictures.movedim(1, -1).numpy()
    judged = [judge(view, told[i // size]) for i, view in enumerate(views)]
    each: Data = {
        "shown": torch.tensor([INDEX[scene] for scene in shown]),
        "pictures": pictures,
        "score": torch.tensor([j.score for j in judged]),
        "craft": torch.tensor([j.craft for j in judged]),
    }
    groups = {name: values.unflatten(0, (len(told), size)) for name, values in each.items()}
    return {"told": torch.tensor([INDEX[scene] for scene in told])} | groups


def training_set(sampled: Tensor, path: Path, seed: int) -> tuple[Data, Data]:
    """Groups to train on, and a few of the base model's that are held back; kept in ``path``."""
    if not path.exists():
        rngs = (numpy_generator(seed, "reward data", part) for part in range(DRAWN // 500))
        parts = [draw_groups("train", 500, GROUP, 0.5, rng) for rng in rngs]
        parts.append(read_groups(sampled))
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        write_atomically(path, lambda part: save_file(whole, str(part)))
    whole = read_tensors(path)
    back = torch.zeros(len(whole["told"]), dtype=torch.bool)
    back[DRAWN::HELD_BACK] = True
    return {k: v[~back] for k, v in whole.items()}, {k: v[back] for k, v in whole.items()}


@cache
def _mirrors() -> Tensor:
    """Index of the scene that each scene is in a mirror."""
    swap = {"left": "right", "right": "left"}
    mirrored = [{**scene.__dict__, "place": swap.get(scene.place, scene.place)} for scene in SCENES]
    return torch.tensor([INDEX[world.Scene(**words)] for words in mirrored])


@cache
def _trained() -> Tensor:
    """Whether each scene is of the training split."""
    return torch.tensor([world.split_of(scene) == "train" for scene in SCENES])


def draw_batch(data: Data, groups: int, rng: np.random.Generator) -> Data:
    """Some groups of a data set, about half of them mirrored.

    Adds ``named`` ``bool[groups, size]``: whether what a picture shows is of the training split.
    A description of the others would tell a held-out caption.
    """
    rows = torch.from_numpy(rng.integers(len(data["told"]), size=groups))
    batch = {name: values[rows] for name, values in data.items()}
    mirrors, trained = _mirrors(), _trained()
    flip = torch.from_numpy(rng.random(groups) < 0.5) & trained[mirrors[batch["told"]]]
    batch["told"] = torch.where(flip, mirrors[batch["told"]], batch["told"])
    batch["shown"] = torch.where(flip[:, None], mirrors[batch["shown"]], batch["shown"])
    shape = (-1, 1, 1, 1, 1)
    batch["pictures"] = torch.where(flip.view(shape), batch["pictures"].flip(-1), batch["pictures"])
    return batch | {"named": trained[batch["shown"]]}
