"""AdamW with moments of eight bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from trainers.errors import UserError
from trainers.optimizers.adamw import AdamW

if TYPE_CHECKING:
    from torch import nn, optim


class AdamW8bit(AdamW):
    """AdamW whose moments are quantised by blocks (Dettmers et al. 2022, arXiv 2110.02861)."""

    name: ClassVar[str] = "adamw-8bit"
    shardable: ClassVar[bool] = False

    def start(self, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        """See the base class; by bitsandbytes, which tensors below 4,096 entries leave in 32 bits.

        Raises:
            UserError: If bitsandbytes is not installed.
        """
        try:
            import bitsandbytes
        except ImportError as error:
            raise UserError(
                "optimizer 'adamw-8bit' needs bitsandbytes, which is not installed: "
                "pip install 'dpo-bench[8bit]', or use 'adamw'"
            ) from error
        kind: Any = bitsandbytes.optim.AdamW8bit
        made: optim.Optimizer = kind(
            parameters,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
        )
        return made

    def state_bytes(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Two moments of a byte a weight; the scale of each block is not counted."""
        return 2 * sum(map(prod, shapes))
