"""Supervised fine-tuning on the preferred images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class SFT(Objective):
    """``L_w``.

    The denoising error of the winner. There is no beta that ``lambda`` could scale. The baseline of
    Diffusion-DPO (arXiv 2311.12908, ``--sft`` of its code).
    """

    name: ClassVar[str] = "sft"
    version: ClassVar[int] = 2
    images: ClassVar[Literal[1, 2]] = 1
    referenced: ClassVar[bool] = False

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        return batch.winner.error
