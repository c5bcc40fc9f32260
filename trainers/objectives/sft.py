"""Supervised fine-tuning on the preferred images."""

from typing import ClassVar

from torch import Tensor

from trainers.objectives.base import Objective, PairErrors


class SFT(Objective):
    """``L_w``: the denoising error of the winner. Reference, loser and ``lambda`` are not used."""

    name: ClassVar[str] = "sft"
    referenced: ClassVar[bool] = False

    def loss(self, errors: PairErrors, scale: Tensor) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        return errors.policy_winner
