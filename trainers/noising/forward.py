"""The forward process: noise that is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from trainers.backbones import Backbone
from trainers.noising.base import Noising, Normal, Predict

if TYPE_CHECKING:
    from torch import Tensor


class Forward(Noising):
    """Both images of a pair are mixed with one noise, as in Diffusion-DPO, or each with its own.

    The timestep is the same for both. With noises of their own, the winner keeps what it has when
    they share one.
    """

    name: ClassVar[str] = "forward"
    share: Literal["noise", "timestep"] = "noise"
    """What the images of a pair have in common: timestep and noise, or the timestep alone."""

    def noise(
        self, latents: Tensor, timesteps: Tensor, drawn: Tensor, normal: Normal,
        backbone: Backbone, predict: Predict,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        import torch

        images, rows = len(latents) // len(drawn), len(drawn)
        if self.share == "noise" or images == 1:
            return drawn.repeat(images, 1, 1, 1)
        return torch.cat([drawn, normal("noise of an image")[rows:]])
