"""The randomness of training: one stream of examples, the same for every arm.

Position ``p`` of the stream fixes an example, its noises, its uniform draw for the timestep and
whether its caption is dropped. Nothing here knows the arm, the batch size or the step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.seeds import derive, numpy_generator


@dataclass(frozen=True)
class Draws:
    """What the stream holds for ``n`` positions."""

    rows: Tensor
    """Index of the pair, ``int64[n]``."""
    uniform: Tensor
    """Draw for the timestep law, ``float64[n]`` in [0, 1)."""
    noise: Tensor
    """Noise that winner and loser share, ``float32[n, C, H, W]``."""
    posterior: Tensor
    """Noises of the two latent posteriors, ``float32[2, n, C, H, W]``."""
    drop: Tensor
    """Draw for the caption dropout, ``float64[n]`` in [0, 1)."""
    image: Tensor
    """Draw for which image of its pair is shown, where one is, ``float64[n]`` in [0, 1)."""
    positions: Tensor
    """Places in the stream, ``int64[n]``."""

    def part(self, rows: Tensor) -> "Draws":
        """Those of some of the positions, by their index ``int64[k]``."""
        return Draws(
            self.rows[rows], self.uniform[rows], self.noise[rows], self.posterior[:, rows],
            self.drop[rows], self.image[rows], self.positions[rows],
        )  # fmt: skip


class Stream:
    """The examples of one training seed over a data set of ``size`` pairs."""

    def __init__(self, seed: int, size: int, shape: tuple[int, ...]) -> None:
        """``shape`` is that of one latent, (C, H, W)."""
        self.seed = seed
        self.size = size
        self.shape = shape

    def at(self, first: int, count: int) -> Draws:
        """The draws of positions ``first`` to ``first + count - 1``."""
        positions = range(first, first + count)
        normal = torch.stack([self._normal("noise", p, (3, *self.shape)) for p in positions], dim=1)
        return Draws(
            rows=self.rows(first, count),
            uniform=self._uniform("timestep", positions),
            noise=normal[0],
            posterior=normal[1:],
            drop=self._uniform("caption dropout", positions),
            image=self._uniform("image of a pair", positions),
            positions=torch.tensor(positions),
        )

    def captions_of_next(self, positions: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """The captions of the next position in the batch, whose last is followed by its first.

        Args:
            positions: ``int64[n]``, all of one batch.
            batch_size: Batches begin at its multiples.

        Returns:
            Pairs ``int64[n]``, and their draws for the caption dropout, ``float64[n]``.
        """
        begins = positions // batch_size * batch_size
        after = (begins + (positions - begins + 1) % batch_size).tolist()
        return torch.tensor([self._row(p) for p in after]), self._uniform("caption dropout", after)

    def normal(self, axis: str, positions: Tensor, side: int) -> Tensor:
        """Further noise for an image of each position, ``float32[n, C, H, W]``.

        Args:
            axis: What it is for.
            positions: ``int64[n]``.
            side: 0 or 1, for the first or second image that is shown of a pair.
        """
        draws = [self._normal(f"{axis} {side}", p, self.shape) for p in positions.tolist()]
        return torch.stack(draws)

    def rows(self, first: int, count: int) -> Tensor:
        """The pairs of positions ``first`` to ``first + count - 1``, ``int64[count]``."""
        return torch.tensor([self._row(p) for p in range(first, first + count)])

    def gate(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Uniform draws ``[n]`` and noise ``[n, C, H, W]`` for measuring the divergence."""
        noise = self._normal("gate noise", step, (count, *self.shape))
        keys = range(step * count, (step + 1) * count)
        return self._uniform("gate timestep", keys), noise

    def _row(self, position: int) -> int:
        """Each epoch is a permutation of its own."""
        epoch, place = divmod(position, self.size)
        return int(_order(self.seed, epoch, self.size)[place])

    def _uniform(self, axis: str, positions: Iterable[int]) -> Tensor:
        seeds = [derive(self.seed, axis, p) >> 10 for p in positions]
        return torch.tensor(seeds, dtype=torch.float64) / 2.0**53

    def _normal(self, axis: str, position: int, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, axis, position))
        return torch.randn(shape, generator=generator)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return numpy_generator(seed, "order", epoch).permutation(size)
