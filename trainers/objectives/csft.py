"""Conditional fine-tuning: captions say how good their image is (CSFT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from trainers.objectives.base import Batch, Objective

if TYPE_CHECKING:
    from torch import Tensor


class CSFT(Objective):
    """``L``, under a caption that says which image of a pair it is.

    Preferred images are shown under ``good`` and their caption, others under ``bad`` and theirs;
    images are made under ``good`` and the prompt, which is part of what they are. Every row shows
    one image of its pair, with a timestep and noise of its own: the preferred one with probability
    ``positive_ratio``. A caption that is dropped is empty, prefix and all. There is no beta that
    ``lambda`` could scale.

    A baseline of Diffusion-KTO (arXiv 2404.04465) after Human Preference Score v1. Its public code
    (``jacklishufan/diffusion-kto``, ``cft``) leaves the choice out of the arguments that it takes,
    so that it cannot be started; its data show preferred images with probability 0.8.
    """

    name: ClassVar[str] = "csft"
    images: ClassVar[Literal[1, 2]] = 1
    referenced: ClassVar[bool] = False
    public_code: ClassVar[str] = "cannot be chosen from its command line"
    good: str = Field("good image, ", max_length=1000)
    bad: str = Field("bad image, ", max_length=1000)
    positive_ratio: float = Field(0.5, gt=0, lt=1)

    @property
    def winners(self) -> float:
        """``positive_ratio``."""
        return self.positive_ratio

    @property
    def prefixes(self) -> tuple[str, str]:
        """``good`` and ``bad``."""
        return self.good, self.bad

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        return batch.winner.error
