"""What a noising is: it says with which noise an image is to be mixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from trainers.backbones import Backbone
from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import Tensor

Predict: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""What the present policy predicts, without gradient, of all images ``[m, C, H, W]`` of a part of a
batch, each at its timestep ``int64[m]`` and under its caption."""
Normal: TypeAlias = "Callable[[str], Tensor]"
"""Standard normal noise of an axis of its own, another for every image, ``float32[m, C, H, W]``."""


class Noising(Settings, ABC):
    """Finds the noise of images; ``x_t`` and the target follow from it."""

    @property
    def forwards(self) -> int:
        """Forward passes of the policy that it takes for an image, at most."""
        return 0

    @abstractmethod
    def noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        drawn: Tensor,
        normal: Normal,
        backbone: Backbone,
        predict: Predict,
    ) -> Tensor:
        """The ``eps`` of ``x_t = a x_0 + b eps``, ``[m, C, H, W]``; called without gradient.

        Args:
            latents: Of all first images of n rows, then of all second ones, ``[m, C, H, W]``.
            timesteps: ``int64[m]``, those of a row alike.
            drawn: The noise of each row, ``[n, C, H, W]``.
            normal: Draws more.
            backbone: Knows ``a`` and ``b``.
            predict: Runs the policy.
        """
