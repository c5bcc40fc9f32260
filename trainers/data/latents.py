"""Pairs as latents: the frozen encoders run once for a data set, not once a step."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainers.backbones import Backbone, Condition, Moments
from trainers.data.base import PairData
from trainers.data.pairs import PairSet
from trainers.files import write_atomically

T = TypeVar("T")


@dataclass(frozen=True)
class PairLatents(PairData):
    """Moments of winners and losers, ``[N, C, H, W]``, and what is told of prompts, ``[P, ...]``.

    Mean and deviation are kept, so that a step can sample the posterior as the original does.
    Row ``prompt[i]`` of ``told`` belongs to pair ``i``; the last row is the empty prompt.
    """

    winner: Moments
    loser: Moments
    told: Condition
    prompt: Tensor

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """See the base class."""
        return tuple(self.winner.mean.shape[1:])

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.prompt)

    def images(self, rows: Tensor) -> tuple[Moments, Moments]:
        """See the base class."""
        winner, loser = self.winner, self.loser
        return (
            Moments(winner.mean[rows], winner.std[rows]),
            Moments(loser.mean[rows], loser.std[rows]),
        )

    def condition(self, rows: Tensor, dropped: Tensor) -> Condition:
        """See the base class."""
        empty = len(next(iter(self.told.values()))) - 1
        prompts = torch.where(dropped, empty, self.prompt[rows])
        return {name: values[prompts] for name, values in self.told.items()}

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {
            "winner.mean": self.winner.mean, "winner.std": self.winner.std,
            "loser.mean": self.loser.mean, "loser.std": self.loser.std,
            "prompt": self.prompt,
        }  # fmt: skip
        tensors |= {f"told.{name}": values for name, values in self.told.items()}
        write_atomically(path, lambda part: save_file(tensors, str(part)))

    @staticmethod
    def load(path: Path) -> "PairLatents":
        """Read what :meth:`save` wrote."""
        t = load_file(path)
        return PairLatents(
            Moments(t["winner.mean"], t["winner.std"]),
            Moments(t["loser.mean"], t["loser.std"]),
            {k.removeprefix("told."): v for k, v in t.items() if k.startswith("told.")},
            t["prompt"],
        )


def encode_pairs(pairs: PairSet, backbone: Backbone, batch: int = 32) -> PairLatents:
    """Encode every image and every distinct prompt of a set of pairs."""
    prompts = list(dict.fromkeys(pair.prompt for pair in pairs.pairs))
    rows = {prompt: row for row, prompt in enumerate(prompts)}
    parts = [backbone.encode_prompts(part) for part in _parts([*prompts, ""], batch)]
    told = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    return PairLatents(
        _encode([pair.winner for pair in pairs.pairs], backbone, batch),
        _encode([pair.loser for pair in pairs.pairs], backbone, batch),
        told,
        torch.tensor([rows[pair.prompt] for pair in pairs.pairs]),
    )


def _encode(images: Sequence[bytes], backbone: Backbone, batch: int) -> Moments:
    parts = [backbone.encode_images(pixels) for pixels in _pixels(images, batch)]
    mean, std = (torch.cat(part).cpu().contiguous() for part in zip(*parts, strict=True))
    return Moments(mean, std)


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _pixels(images: Sequence[bytes], batch: int) -> Iterator[Tensor]:
    for part in _parts(images, batch):
        arrays = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in part]
        yield torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
