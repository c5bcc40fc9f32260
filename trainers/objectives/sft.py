"""Supervised fine-tuning on the preferred images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainers.objectives.base import Objective, PairErrors

if TYPE_CHECKING:
    from torch import Tensor


class SFT(Objective):
    """``L_w``: the denoising error of the winner. Reference, loser and ``lambda`` are not used."""

    name: ClassVar[str] = "sft"
    referenced: ClassVar[bool] = False

    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        return errors.policy_winner
